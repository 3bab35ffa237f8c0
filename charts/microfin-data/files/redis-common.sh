# Functions that the scripts of a Redis node share. They run commands as the user microfin_admin,
# whose password is in REDISCLI_AUTH.

MASTERS=3
STATEFUL_SET=${POD_NAME%-*}
ORDINAL=${POD_NAME##*-}
# The folder with the node's certificate and its authority's, if the nodes speak TLS.
TLS=${TLS:-}
# This node's loopback, and how to look for addresses of its family: a pod may have one of each.
case $POD_IP in
    *:*)
        LOCAL=::1
        FAMILY=ahostsv6 ;;
    *)
        LOCAL=127.0.0.1
        FAMILY=ahostsv4 ;;
esac

host_of() {
    echo "$STATEFUL_SET-$1.$DOMAIN"
}

address_of() { # address_of HOST: its current address, if it has one
    { getent "$FAMILY" "$1" || getent hosts "$1"; } | awk '{ print $1; exit }'
}

ask() { # ask ADDRESS COMMAND...: fails if the node does not answer within LIMIT seconds, or refuses
    address=$1
    shift
    # This node may still have the certificate of an earlier authority; the question stays in the pod.
    trust="--cacert $TLS/ca.crt"
    [ "$address" != "$LOCAL" ] || trust=--insecure
    # shellcheck disable=SC2086 - one word each
    answer=$(timeout "${LIMIT:-2}" redis-cli -e -h "$address" ${TLS:+--tls $trust} \
        --user microfin_admin --no-auth-warning "$@") || return 1
    echo "$answer" | tr -d '\r'
}

ask_self() {
    ask "$LOCAL" "$@"
}

myself() { # the line about this node in the answer to CLUSTER NODES
    echo "$1" | awk '$3 ~ /myself/'
}

has_slots() { # has_slots LINE
    echo "$1" | awk '{ exit NF < 9 }'
}

is_replica() { # is_replica LINE
    echo "$1" | awk '{ exit $3 !~ /slave/ }'
}
