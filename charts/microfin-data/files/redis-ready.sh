#!/bin/sh
# Succeeds when this node has its part in a cluster that works.
set -eu
. /etc/redis/common.sh

ask_self cluster info | grep -q '^cluster_state:ok$'
line=$(myself "$(ask_self cluster nodes)")
if is_replica "$line"; then
    ask_self info replication | grep -q '^master_link_status:up$'
else
    has_slots "$line"
fi
