#!/bin/sh
# Keeps this node in the cluster, for as long as the pod lives. It looks at what is, not at what has
# happened, and changes only its own node; so it makes a new cluster, and mends one whose pods all
# came back under other addresses, or one of whose volumes is gone, by the same few rules:
#
#   1. A node of ours that answers, but that we do not know or know elsewhere, is met where it is.
#   2. A node that is missed, and whose name belongs to another by now or to nobody, is replaced by
#      its replica. Once no node follows it any more, it is forgotten.
#   3. When all nodes are known: each of the first three takes the slots of its third that nobody has,
#      and gives up following another for that. A node without slots becomes a replica of the master
#      that has the fewest.
set -u
. /etc/redis/common.sh

say() {
    echo "$(date -u +%H:%M:%S) $*"
}

is_well_known() { # is_well_known NODES HOST: a connected node of that name that nobody misses
    echo "$1" | awk -v host="$2" '
        { split($2, place, ",") }
        place[2] == host && $3 !~ /fail|noaddr|handshake/ && ($8 == "connected" || $3 ~ /myself/) { found = 1 }
        END { exit !found }'
}

meet() { # meet HOST: by the address that its name has now, if it is indeed that node
    address=$(getent hosts "$1" | awk '{ print $1; exit }')
    [ -n "$address" ] || return 1
    told=$(ask "$address" config get cluster-announce-hostname 2>/dev/null | tail -n 1)
    [ "$told" = "$1" ] || return 1
    say "meeting $1 at $address"
    ask_self cluster meet "$address" 6379 > /dev/null
}

is_gone() { # is_gone ID HOST: whether that name belongs to another node by now, or to nobody
    ordinal=${2%%.*}
    ordinal=${ordinal##*-}
    [ "${2#"$STATEFUL_SET-"}" != "$2" ] && [ "$ordinal" -lt "$NODES" ] || return 0
    address=$(getent hosts "$2" | awk '{ print $1; exit }')
    [ -n "$address" ] || return 1
    now=$(ask "$address" cluster myid 2>/dev/null) && [ "$now" != "$1" ]
}

replace_the_gone() { # replace_the_gone NODES
    echo "$1" | awk '
        $3 ~ /slave/ { followed[$4] = 1 }
        $3 ~ /myself/ { master = $4 }
        ($3 ~ /fail/ && $3 !~ /fail\?/) || $3 ~ /noaddr/ { split($2, place, ","); lost[$1] = place[2] }
        END {
            for (id in lost) {
                if (!(id in followed)) print "forget", id, lost[id]
                # A node that never knew the name of what it replaces has nothing of it.
                if (id == master && lost[id] != "") print "replace", id, lost[id]
            }
        }' |
    while read -r rule id host; do
        is_gone "$id" "$host" || continue
        say "$rule $id, which was $host"
        case $rule in
            forget) ask_self cluster forget "$id" > /dev/null ;;
            # Nobody will miss it so that a vote is held: what has no address is not asked either.
            replace) ask_self cluster failover takeover > /dev/null ;;
        esac
    done
}

free_slots() { # free_slots NODES: "FIRST LAST" for each range of our third that nobody has
    echo "$1" | awk -v third="$ORDINAL" -v masters="$MASTERS" '
        { for (field = 9; field <= NF; field++) if ($field !~ /^\[/) {
              split($field, range, "-"); last = range[2] == "" ? range[1] : range[2]
              for (slot = range[1] + 0; slot <= last + 0; slot++) taken[slot] = 1 } }
        END {
            first = int(third * 16384 / masters); end = int((third + 1) * 16384 / masters)
            for (slot = first; slot <= end; slot++) {
                free = slot < end && !(slot in taken)
                if (free && begin == "") begin = slot
                if (!free && begin != "") { printf "%d %d ", begin, slot - 1; begin = "" }
            }
        }'
}

lonely_master() { # lonely_master NODES: the one with the fewest replicas, if equal our own
    echo "$1" | awk -v wanted="$STATEFUL_SET-$((ORDINAL % MASTERS))" '
        $3 ~ /fail|handshake|noaddr/ { next }
        $3 ~ /slave/ { replicas[$4]++ }
        $3 ~ /master/ && NF >= 9 { split($2, place, ","); split(place[2], name, "."); masters[$1] = name[1] }
        END {
            for (id in masters) {
                score = 2 * replicas[id] + (masters[id] != wanted)
                if (best == "" || score < least) { best = id; least = score }
            }
            print best
        }'
}

find_a_part() { # find_a_part NODES: for this node, when all are known
    line=$(myself "$1")
    free=
    [ "$ORDINAL" -ge "$MASTERS" ] || free=$(free_slots "$1")
    if [ -n "$free" ] && is_replica "$line"; then
        say "following nobody any more: our third is free"
        ask_self cluster reset soft > /dev/null
    elif [ -n "$free" ]; then
        say "taking the slots $free"
        # shellcheck disable=SC2086 - one word each
        ask_self cluster addslotsrange $free > /dev/null
    elif ! has_slots "$line" && ! is_replica "$line"; then
        follow_somebody "$1"
    fi
}

follow_somebody() { # follow_somebody NODES
    # Not while some master is still taking its slots: all would choose the one that is known first.
    ask_self cluster info | grep -q '^cluster_slots_assigned:16384$' || return
    master=$(lonely_master "$1")
    [ -n "$master" ] || return
    say "becoming a replica of $master"
    ask_self cluster replicate "$master" > /dev/null
}

is_settled() { # is_settled NODES: whether nothing is left to do, told by one look at all of them
    echo "$1" | awk -v count="$NODES" '
        { split($2, place, ","); if (!(place[2] in seen)) { seen[place[2]] = 1; known++ } }
        $3 ~ /fail|noaddr|handshake/ || ($8 != "connected" && $3 !~ /myself/) { strange = 1 }
        $3 ~ /myself/ && ($3 ~ /slave/ || NF >= 9) { part = 1 }
        { for (field = 9; field <= NF; field++) if ($field !~ /^\[/) {
              split($field, range, "-"); slots += 1 + (range[2] == "" ? 0 : range[2] - range[1]) } }
        END { exit !(part && !strange && known == count && NR == count && slots == 16384) }'
}

look() {
    nodes=$(ask_self cluster nodes 2>/dev/null) || return
    is_settled "$nodes" && return
    unknown=0
    ordinal=0
    while [ "$ordinal" -lt "$NODES" ]; do
        host=$(host_of "$ordinal")
        if ! is_well_known "$nodes" "$host"; then
            unknown=$((unknown + 1))
            [ "$ordinal" = "$ORDINAL" ] || meet "$host"
        fi
        ordinal=$((ordinal + 1))
    done
    replace_the_gone "$nodes"
    [ "$unknown" != 0 ] || find_a_part "$nodes"
}

trap 'exit 0' TERM
while true; do
    look
    sleep 1 &
    wait $!
done
