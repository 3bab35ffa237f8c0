#!/bin/sh
# Runs redis-server as a child, as the first process of its container. A shell waits for every child,
# also for what a probe leaves behind that was killed in the middle; redis-server does not, and such
# processes would stay as zombies until the pod has no process ids left. This script begins with a new
# environment, without passwords.
set -u

redis-server /run/redis/redis.conf &
server=$!
trap 'kill -TERM "$server"' TERM INT
# A signal ends `wait` before the server has ended.
while :; do
    wait "$server"
    code=$?
    kill -0 "$server" 2> /dev/null || exit "$code"
done
