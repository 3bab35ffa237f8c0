#!/bin/sh
# Runs the end-to-end tests on the lab's node (LAB names its script): builds the images, boots the
# node, installs CloudNativePG and Kafka, tests, and stops the node again. Arguments go to pytest.
set -eu
cd "$(dirname "$0")/../.."
lab=${LAB:-../shared/lab/lab}
home=${LAB_HOME:-$HOME/.cache/lab}
store=$home/buildah

# As `lab build` does, whose argument parser takes no option first. The machine's certificates are
# lent to the build, for a package index behind a CA of its own.
build() {
    buildah --root "$store/root" --runroot "$store/run" --storage-driver overlay bud --quiet \
        --isolation chroot --network host --pull-never --layers \
        --volume /etc/ssl/certs:/etc/ssl/certs:ro "$@" >/dev/null
}

# Helm 3, for what helm does to a MicrofinCluster that people scale; the lab's is Helm 4.
helm3() {
    [ -x "$home/bin/helm3" ] && return
    GOBIN=$home/helm3 go install helm.sh/helm/v3/cmd/helm@v3.21.3
    mv "$home/helm3/helm" "$home/bin/helm3"
    rmdir "$home/helm3"
}

"$lab" up
trap '"$lab" down' EXIT
"$lab" images pause python kafka postgres redis pgbouncer cnpg
for part in api worker operator; do
    build --target "$part" --tag "ghcr.io/microfin/$part:e2e" .
done
build --target worker --tag ghcr.io/microfin/worker:e2e-2 --label org.opencontainers.image.version=e2e-2 .
# Load, and the Prometheus that it writes to: this machine's programs.
"$lab" tools k6
mkdir -p "$home/e2e"
cp "$home/bin/k6" "$(command -v prometheus)" "$home/e2e"
build --file loadtest/Dockerfile --tag ghcr.io/microfin/k6:e2e "$home/e2e"
build --file tests/e2e/prometheus.Dockerfile --tag ghcr.io/microfin/prometheus:e2e "$home/e2e"
rm -r "$home/e2e"
export MICROFIN_E2E_K6_IMAGE=ghcr.io/microfin/k6:e2e
export MICROFIN_E2E_PROMETHEUS_IMAGE=ghcr.io/microfin/prometheus:e2e
"$lab" push ghcr.io/microfin/api:e2e ghcr.io/microfin/worker:e2e ghcr.io/microfin/worker:e2e-2 \
    ghcr.io/microfin/operator:e2e "$MICROFIN_E2E_K6_IMAGE" "$MICROFIN_E2E_PROMETHEUS_IMAGE"
"$lab" install cnpg kafka
"$lab" volumes
eval "$("$lab" env)"
if command -v go >/dev/null; then
    helm3
    export MICROFIN_E2E_HELMS="$home/bin/helm3"
fi
failed=0
.venv/bin/pytest tests/e2e "$@" || failed=$?
# What the tests' namespaces held is gone before the node stops, and with it their volumes.
kubectl get namespaces -o name | grep /microfin-e2e- |
    xargs -r kubectl wait --for=delete --timeout=120s || true
exit "$failed"
