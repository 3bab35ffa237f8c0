#!/bin/sh
# Runs the end-to-end tests on the lab's node (LAB names its script): builds the images, boots the
# node, installs Kafka and CloudNativePG, tests, and stops the node again. Arguments go to pytest.
set -eu
cd "$(dirname "$0")/../.."
lab=${LAB:-../shared/lab/lab}
store=${LAB_HOME:-$HOME/.cache/lab}/buildah

# As `lab build` does, whose argument parser takes no option first. The machine's certificates are
# lent to the build, for a package index behind a CA of its own.
build() {
    buildah --root "$store/root" --runroot "$store/run" --storage-driver overlay bud --quiet \
        --isolation chroot --network host --pull-never --layers \
        --volume /etc/ssl/certs:/etc/ssl/certs:ro "$@" . >/dev/null
}

"$lab" up
trap '"$lab" down' EXIT
"$lab" images pause python kafka postgres pgbouncer cnpg redis
build --target worker --tag ghcr.io/microfin/worker:e2e
build --target worker --tag ghcr.io/microfin/worker:e2e-2 --label org.opencontainers.image.version=e2e-2
build --target operator --tag ghcr.io/microfin/operator:e2e
"$lab" push ghcr.io/microfin/worker:e2e ghcr.io/microfin/worker:e2e-2 ghcr.io/microfin/operator:e2e
"$lab" install cnpg kafka
eval "$("$lab" env)"
.venv/bin/pytest tests/e2e "$@"
