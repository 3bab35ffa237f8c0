#!/bin/sh
# Writes the pinned and hashed packages of each image and of the site, from the workspace's pins
# (make pins).
set -eu
cd "$(dirname "$0")/.."

compile() {
    .venv/bin/python -m uv pip compile --quiet --universal --generate-hashes \
        --no-emit-index-url --no-emit-find-links \
        --no-emit-package microfin --no-emit-package microfin-api \
        --no-emit-package microfin-worker --no-emit-package microfin-tools \
        --no-emit-package microfin-operator \
        --custom-compile-command 'make pins' "$@"
}

compile images/build.in -o images/build.txt
compile services/api/pyproject.toml --constraint requirements.txt -o images/api.txt
compile services/worker/pyproject.toml services/tools/pyproject.toml \
    --constraint requirements.txt -o images/worker.txt
compile operator/pyproject.toml --constraint requirements.txt -o images/operator.txt
compile website/requirements.in --constraint requirements.txt -o website/requirements.txt
