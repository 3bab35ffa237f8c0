#!/bin/sh
# Runs the charts' own tests (charts/*/tests) with helm-unittest, which is built from its Go module
# where it is missing.
set -eu
cd "$(dirname "$0")"
version=v1.1.2
runner=${HELM_UNITTEST:-$(command -v helm-unittest || true)}
if [ -z "$runner" ]; then
    runner=$(go env GOPATH)/bin/helm-unittest
    [ -x "$runner" ] || go install "github.com/helm-unittest/helm-unittest/cmd/helm-unittest@$version"
fi
for tests in */tests; do
    "$runner" --strict "${tests%/tests}"
done
