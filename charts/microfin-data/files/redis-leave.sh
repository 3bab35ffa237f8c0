#!/bin/sh
# Runs before the node stops: a master hands its role to one of its replicas, so that no client
# notices that the master is gone. The nodes may refuse or miss the request while they do not know each
# other yet, and Redis cancels a failover after five seconds. So the script asks again, for ten seconds
# in total.
set -u
. /etc/redis/common.sh

replica_of() { # replica_of NODES ID: "ADDRESS LINK-STATE" of a replica of ID, a connected one first
    echo "$1" | awk -v master="$2" '
        $4 == master && $3 !~ /fail|noaddr/ { sub(/:[0-9]+@.*/, "", $2); print $2, $8 }' | sort -k 2 | head -n 1
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
echo "no replica became master within ten seconds: the other nodes will notice that this node is gone" >&2
