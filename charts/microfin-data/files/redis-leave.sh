#!/bin/sh
# Before the node stops: a master lets one of its replicas take over, so that nobody misses it.
# What is asked can be refused or missed while nodes are still getting to know each other, and Redis
# gives a failover up after five seconds: so it is asked again, for ten seconds in all.
set -u
. /etc/redis/common.sh

replica_of() { # replica_of NODES ID: "ADDRESS LINK-STATE" of one that follows it, a connected one first
    echo "$1" | awk -v master="$2" '
        $4 == master && $3 !~ /fail|noaddr/ { split($2, place, ":"); print place[1], $8 }' | sort -k 2 | head -n 1
}

attempt=0 asked=no
while [ "$attempt" -lt 20 ]; do
    nodes=$(ask_self cluster nodes) || exit 0
    line=$(myself "$nodes")
    is_replica "$line" && exit 0
    replica=$(replica_of "$nodes" "${line%% *}")
    [ -n "$replica" ] || exit 0
    if [ $((attempt % 10)) = 0 ] || [ "$asked" = no ]; then
        ask "${replica% *}" cluster failover > /dev/null && asked=yes || asked=no
    fi
    attempt=$((attempt + 1))
    sleep 0.5
done
echo "no replica took over within ten seconds: the others will notice that this node is gone" >&2
