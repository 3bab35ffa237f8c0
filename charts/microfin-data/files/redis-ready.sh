#!/bin/sh
# Succeeds when the cluster works and this node has its role in it.
set -eu
. /etc/redis/common.sh

ask_self cluster info | grep -q '^cluster_state:ok$'
line=$(myself "$(ask_self cluster nodes)")
if is_replica "$line"; then
    ask_self info replication | grep -q '^master_link_status:up$'
else
    has_slots "$line"
fi
