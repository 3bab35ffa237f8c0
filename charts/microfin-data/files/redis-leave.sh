#!/bin/sh
# Before the node stops: a master lets one of its replicas take over, so that nobody misses it.
set -u
. /etc/redis/common.sh

nodes=$(ask_self cluster nodes) || exit 0
line=$(myself "$nodes")
is_replica "$line" && exit 0
id=${line%% *}
replica=$(echo "$nodes" | awk -v master="$id" '
    $4 == master && $3 !~ /fail|noaddr/ && $8 == "connected" { split($2, place, ":"); print place[1]; exit }')
[ -n "$replica" ] || exit 0
ask "$replica" cluster failover > /dev/null || exit 0
for _ in 1 2 3 4 5 6 7 8 9 10; do
    is_replica "$(myself "$(ask_self cluster nodes)")" && exit 0
    sleep 0.5
done
