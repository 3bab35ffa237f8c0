# Functions that the scripts of a Redis node share. They run commands as the user microfin_admin,
# whose password is in REDISCLI_AUTH.

MASTERS=3
STATEFUL_SET=${POD_NAME%-*}
ORDINAL=${POD_NAME##*-}

host_of() {
    echo "$STATEFUL_SET-$1.$DOMAIN"
}

ask() { # ask ADDRESS COMMAND...: fails if the node does not answer or refuses
    address=$1
    shift
    answer=$(timeout 2 redis-cli -e -h "$address" --user microfin_admin --no-auth-warning "$@") || return 1
    echo "$answer" | tr -d '\r'
}

ask_self() {
    ask 127.0.0.1 "$@"
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
