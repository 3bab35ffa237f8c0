#!/bin/sh
# Installs into /app what an image holds; runs in the build stages of the Dockerfile.
#
#   images/install.sh pins images/api.txt             # the packages of others
#   images/install.sh members services/core …         # ours, from the folders that are named
set -eu
kind=$1
shift

install() {
    /build/bin/uv pip install --python /app/bin/python --compile-bytecode "$@"
}

case $kind in
    pins) install --require-hashes -r "$1" ;;
    members)
        for member; do
            (cd "$member" && /build/bin/python -m hatchling build -t wheel -d /wheels)
        done
        install --no-deps /wheels/*.whl
        ;;
    *)
        echo "usage: $0 pins FILE | members FOLDER..." >&2
        exit 2
        ;;
esac
