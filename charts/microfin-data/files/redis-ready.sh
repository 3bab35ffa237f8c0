#!/bin/sh
# Succeeds when the cluster works and this node has its role in it. Its three questions together end
# within the time of the probe, so that the kubelet never has to kill it in the middle.
LIMIT=1
set -eu
. /etc/redis/common.sh

ask_self cluster info | grep -q '^cluster_state:ok$'
line=$(myself "$(ask_self cluster nodes)")
if is_replica "$line"; then
    ask_self info replication | grep -q '^master_link_status:up$'
else
    has_slots "$line"
fi
