#!/bin/sh
# Runs the charts' own tests (charts/*/tests) with helm-unittest, which is built from its Go module
# where it is missing.
set -eu
cd "$(dirname "$0")"
module=github.com/helm-unittest/helm-unittest@v1.1.2

# `go install` refuses a module that replaces another.
build() {
    folder=$(go mod download -json "$module" | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')
    (cd "$folder" && go build -o "$1" ./cmd/helm-unittest)
}

runner=${HELM_UNITTEST:-$(command -v helm-unittest || true)}
if [ -z "$runner" ]; then
    runner=$(go env GOPATH)/bin/helm-unittest
    [ -x "$runner" ] || build "$runner"
fi
for tests in */tests; do
    "$runner" --strict "${tests%/tests}"
done
