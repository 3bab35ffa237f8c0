#!/bin/sh
# The keeper: it keeps this node in the cluster as long as the pod lives. It looks at the current
# state of the cluster, and not at past events, and it changes only its own node. With the same few
# rules it makes a new cluster, and repairs one whose pods all have new addresses or that has lost a
# volume:
#
#   1. If a node of the cluster answers, and this node does not know it or knows it at another address,
#      this node meets it at its current address.
#   2. If a node is missing, and its name now belongs to another node or to none, its replica replaces
#      it. When no node follows the missing node any more, the other nodes forget it.
#   3. When this node knows all nodes: if it is one of the first three, it acquires the slots of its
#      third that no node has, and stops following another node for that. A node without slots becomes
#      a replica of the master that has the fewest.
#
# With TLS it also has the node read its certificate again when the files have changed.
set -u
. /etc/redis/common.sh

say() {
    echo "$(date -u +%H:%M:%S) $*"
}

is_well_known() { # is_well_known NODES HOST: there is a connected node of that name, and no node misses it
    echo "$1" | awk -v host="$2" '
        { split($2, place, ",") }
        place[2] == host && $3 !~ /fail|noaddr|handshake/ && ($8 == "connected" || $3 ~ /myself/) { found = 1 }
        END { exit !found }'
}

meet() { # meet HOST: at the current address of its name, if that node has this name
    address=$(address_of "$1")
    [ -n "$address" ] || return 1
    name=$(ask "$address" config get cluster-announce-hostname 2>/dev/null | tail -n 1)
    [ "$name" = "$1" ] || return 1
    say "meeting $1 at $address"
    ask_self cluster meet "$address" 6379 > /dev/null
}

is_gone() { # is_gone ID HOST: whether that name now belongs to another node, or to none
    ordinal=${2%%.*}
    ordinal=${ordinal##*-}
    [ "${2#"$STATEFUL_SET-"}" != "$2" ] && [ "$ordinal" -lt "$NODES" ] || return 0
    address=$(address_of "$2")
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
                # A replica that never knew the name of its master has none of the data.
                if (id == master && lost[id] != "") print "replace", id, lost[id]
            }
        }' |
    while read -r rule id host; do
        is_gone "$id" "$host" || continue
        say "$rule $id, which was $host"
        case $rule in
            forget) ask_self cluster forget "$id" > /dev/null ;;
            # There will be no vote: the nodes do not ask a node without an address, so none misses it.
            replace) ask_self cluster failover takeover > /dev/null ;;
        esac
    done
}

free_slots() { # free_slots NODES: "FIRST LAST" for each range of this node's third that no node has
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

lonely_master() { # lonely_master NODES: the master with the fewest replicas; among equals, this node's own
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

find_a_role() { # find_a_role NODES: for this node, when it knows all nodes
    line=$(myself "$1")
    free=
    [ "$ORDINAL" -ge "$MASTERS" ] || free=$(free_slots "$1")
    if [ -n "$free" ] && is_replica "$line"; then
        say "stops following a master: slots of this node's third are free"
        ask_self cluster reset soft > /dev/null
    elif [ -n "$free" ]; then
        say "acquiring the slots $free"
        # shellcheck disable=SC2086 - one word each
        ask_self cluster addslotsrange $free > /dev/null
    elif ! has_slots "$line" && ! is_replica "$line"; then
        follow_somebody "$1"
    fi
}

follow_somebody() { # follow_somebody NODES
    # Waits until the masters have acquired all slots. Otherwise all replicas would choose the first
    # master that they know.
    ask_self cluster info | grep -q '^cluster_slots_assigned:16384$' || return
    master=$(lonely_master "$1")
    [ -n "$master" ] || return
    say "becoming a replica of $master"
    ask_self cluster replicate "$master" > /dev/null
}

is_complete() { # is_complete NODES: whether nothing is left to do, judged by one look at all nodes
    echo "$1" | awk -v count="$NODES" '
        { split($2, place, ","); if (!(place[2] in seen)) { seen[place[2]] = 1; known++ } }
        $3 ~ /fail|noaddr|handshake/ || ($8 != "connected" && $3 !~ /myself/) { strange = 1 }
        $3 ~ /myself/ && ($3 ~ /slave/ || NF >= 9) { role = 1 }
        { for (field = 9; field <= NF; field++) if ($field !~ /^\[/) {
              split($field, range, "-"); slots += 1 + (range[2] == "" ? 0 : range[2] - range[1]) } }
        END { exit !(role && !strange && known == count && NR == count && slots == 16384) }'
}

# The node uses the certificate that it began with, or that it last read on request. The files of a
# volume change together, but the keeper may see them in between: then the node refuses them, and the
# keeper tries again.
read_certificates_again() {
    [ -n "$TLS" ] || return
    now=$(cat "$TLS/tls.crt" "$TLS/tls.key" "$TLS/ca.crt" 2>/dev/null | sha256sum)
    [ "$now" != "$certificates" ] || return
    ask_self config set tls-cert-file "$TLS/tls.crt" tls-key-file "$TLS/tls.key" \
        tls-ca-cert-file "$TLS/ca.crt" > /dev/null 2>&1 || return
    [ -z "$certificates" ] || say "the node has read its certificate again"
    certificates=$now
}

look() {
    nodes=$(ask_self cluster nodes 2>/dev/null) || return
    is_complete "$nodes" && return
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
    [ "$unknown" != 0 ] || find_a_role "$nodes"
}

trap 'exit 0' TERM
certificates=
while true; do
    read_certificates_again
    look
    sleep 1 &
    wait $!
done
