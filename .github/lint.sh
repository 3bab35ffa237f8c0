#!/bin/sh
# Lints the workflows with actionlint, which is built from its Go module where it is missing.
set -eu
cd "$(dirname "$0")/.."
runner=${ACTIONLINT:-$(command -v actionlint || true)}
if [ -z "$runner" ]; then
    runner=$(go env GOPATH)/bin/actionlint
    if [ ! -x "$runner" ]; then
        folder=$(go mod download -json github.com/rhysd/actionlint@v1.7.9 | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')
        (cd "$folder" && go build -o "$runner" ./cmd/actionlint)
    fi
fi
"$runner" .github/workflows/*.yaml
echo "actionlint: nothing found"
