#!/bin/sh
# Runs the end-to-end tests on the lab, a Kubernetes node for tests (LAB names its script). It builds
# the images, boots the node, installs CloudNativePG and Kafka, acts as Strimzi for it, enforces the
# NetworkPolicies, runs the tests, and stops everything again. The cluster is a new one, and is forgotten
# at the end; programs and images stay. Arguments go to pytest.
set -eu
cd "$(dirname "$0")/../.."
lab=${LAB:-../shared/lab/lab}
home=${LAB_HOME:-$HOME/.cache/lab}
store=$home/buildah

# Stops the node and forgets its cluster. The lab does not remove the networks of the pods that still
# run, and the next cluster's pods get the same addresses: a connection then ends in the wrong one.
wipe() {
    networks=$(ip -o link show master labbr0 2>/dev/null | sed -n 's/.* link-netns \(cni-[^ ]*\).*/\1/p')
    "$lab" down --wipe
    for network in $networks; do
        ip netns delete "$network"
    done
}

# Does the same as `lab build`, whose argument parser accepts no option first. The build uses the
# machine's certificates, for a package index with its own CA.
build() {
    buildah --root "$store/root" --runroot "$store/run" --storage-driver overlay bud --quiet \
        --isolation chroot --network host --pull-never --layers \
        --volume /etc/ssl/certs:/etc/ssl/certs:ro "$@" >/dev/null
}

# Helm 3, to test what it does to a MicrofinCluster that people scale; the lab has Helm 4.
helm3() {
    [ -x "$home/bin/helm3" ] && return
    GOBIN=$home/helm3 go install helm.sh/helm/v3/cmd/helm@v3.21.3
    mv "$home/helm3/helm" "$home/bin/helm3"
    rmdir "$home/helm3"
}

# Finds the folder of a Go module; `go install` would also ask the proxy for all versions. If the proxy
# does not have the module, only the tests that need it are skipped, and they say so.
find_module() {
    folder=$(go mod download -json "$1" | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')
    [ -n "$folder" ] || echo "$0: the Go module $1 is not available; tests that need it are skipped" >&2
}

# Builds a program of that folder, unless it is there.
program() {
    [ -x "$2" ] || (cd "$folder" && CGO_ENABLED=0 go build -ldflags '-s -w' -o "$2" "$1")
}

# The alerts on audits need kube-state-metrics; the lab has none.
kube_state_metrics() {
    find_module k8s.io/kube-state-metrics/v2@v2.18.0
    [ -n "$folder" ] || return 0
    program . "$home/bin/kube-state-metrics"
}

# k6 for load from inside the cluster, and the Prometheus that it writes to: this machine's programs.
k6_and_prometheus() {
    "$lab" tools k6
    mkdir -p "$home/e2e"
    cp "$home/bin/k6" "$(command -v prometheus)" "$home/e2e"
    build --file loadtest/Dockerfile --tag ghcr.io/microfin/k6:1.8.1 "$home/e2e"
    build --file tests/e2e/prometheus.Dockerfile --tag ghcr.io/microfin/prometheus:e2e "$home/e2e"
    rm -r "$home/e2e"
    "$lab" push ghcr.io/microfin/k6:1.8.1 ghcr.io/microfin/prometheus:e2e
    export K6_IMAGE=ghcr.io/microfin/k6:1.8.1
    export MICROFIN_E2E_PROMETHEUS_IMAGE=ghcr.io/microfin/prometheus:e2e
}

# The k6 operator, which acts on TestRuns.
k6_operator() {
    find_module github.com/grafana/k6-operator@v1.5.0
    [ -n "$folder" ] || return 0
    program ./cmd "$home/k6-operator/manager"
    # By the names that the chart and the operator give them.
    images=ghcr.io/grafana/k6-operator
    recipe=tests/e2e/k6-operator/Dockerfile
    build --target controller --tag "$images:controller-v1.5.0" --file "$recipe" "$home/k6-operator"
    build --target starter --tag "$images:latest-starter" --file "$recipe" "$home/k6-operator"
    "$lab" push "$images:controller-v1.5.0" "$images:latest-starter"
    export MICROFIN_E2E_K6_OPERATOR="$folder"
}

# Traefik serves Ingresses and Gateways. The module proxy may lack the clients of some vendors' DNS and
# a version of a fork: stand-ins and an older version replace them. Only a Traefik that asks for
# certificates itself, or for passwords, uses them.
traefik() {
    find_module sigs.k8s.io/gateway-api@v1.6.1
    [ -n "$folder" ] || return 0
    definitions=$folder/config/crd/standard
    find_module github.com/traefik/traefik/v3@v3.7.13
    [ -n "$folder" ] || return 0
    module=$folder
    [ -x "$home/traefik/traefik" ] || build_traefik ||
        { echo "$0: Traefik cannot be built; tests that need it are skipped" >&2; return 0; }
    # By the name that its chart gives it.
    image=docker.io/library/traefik:v3.7.13
    build --tag "$image" --file tests/e2e/traefik/Dockerfile "$home/traefik"
    "$lab" push "$image"
    export MICROFIN_E2E_TRAEFIK="$module" MICROFIN_E2E_GATEWAY_API="$definitions"
}

build_traefik() {
    mkdir -p "$home/traefik"
    folder=$home/traefik-source
    rm -rf "$folder"
    cp -r "$module" "$folder"
    chmod -R u+w "$folder"
    mkdir -p "$folder/pkg/config/dynamic/ext" "$folder/e2e/dns"
    cp tests/e2e/traefik/ext.go "$folder/pkg/config/dynamic/ext"
    echo 'module github.com/traefik/traefik/dynamic/ext' >"$folder/pkg/config/dynamic/ext/go.mod"
    cp tests/e2e/traefik/dns.go "$folder/e2e/dns"
    sed -i 's|github.com/go-acme/lego/v5/providers/dns"|github.com/traefik/traefik/v3/e2e/dns"|' \
        "$folder/pkg/provider/acme/provider.go"
    (cd "$folder" && go mod edit -replace \
        github.com/abbot/go-http-auth=github.com/containous/go-http-auth@v0.4.1-0.20200324110947-a37a7636d23e)
    (export GOFLAGS=-mod=mod && program ./cmd/traefik "$home/traefik/traefik")
    built=$?
    rm -r "$folder"
    return "$built"
}

# The charts name tags that never move; the lab's images have these names, too.
stand_in() {
    buildah --root "$store/root" --runroot "$store/run" --storage-driver overlay tag "$1" "$2"
    "$lab" push "$2"
}

# The node's Kafka has no operator, so a stand-in of the tests gives it what Strimzi gives a Kafka: TLS,
# certificates of users and their rights (ADR 0037).
strimzi() {
    served=$(mktemp)
    PYTHONPATH=tests .venv/bin/python -m e2e.strimzi >"$served" 2>&1 &
    strimzi=$!
    timeout 240 sh -c 'until grep -q ^serving "$0"; do kill -0 "$1" || exit 1; sleep 0.2; done' \
        "$served" "$strimzi" || { cat "$served"; exit 1; }
}

# The images of the release that test_two_banks.py upgrades from. A shallow clone may lack its commit.
images_before() {
    before=$(grep -v '^#' tests/e2e/upgraded-from)
    if ! git cat-file -e "$before^{commit}"; then
        echo "$0: git does not have $before; the test that upgrades from it is skipped" >&2
        return 0
    fi
    sources=$(mktemp -d)
    git archive "$before" | tar -x -C "$sources"
    for part in api worker operator; do
        build --target "$part" --tag "ghcr.io/microfin/$part:e2e-before" "$sources"
        "$lab" push "ghcr.io/microfin/$part:e2e-before"
    done
    rm -r "$sources"
    export MICROFIN_E2E_BEFORE_TAG=e2e-before
}

# The lab has 60 volumes, and offers one again only when it is asked to. The tests claim almost as many.
offer_volumes_again() {
    while sleep 60; do
        "$lab" volumes || true
    done >/dev/null 2>&1 &
    offering=$!
}

# The node's network does not enforce NetworkPolicies, so an agent of the tests does (ADR 0036).
enforce_policies() {
    if ! command -v nft >/dev/null; then
        apt-get update -q >/dev/null
        DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends nftables >/dev/null
    fi
    refused=$(mktemp)
    node=$(kubectl get nodes -o 'jsonpath={.items[0].status.addresses[?(@.type=="InternalIP")].address}')
    # The node's DNS listens on 1053.
    PYTHONPATH=tests .venv/bin/python -m network_policies --node "$node" --node-port 53=1053 \
        >"$refused" 2>&1 &
    agent=$!
    timeout 60 sh -c 'until grep -q ^enforcing "$0"; do kill -0 "$1" || exit 1; sleep 0.2; done' \
        "$refused" "$agent"
    export MICROFIN_E2E_ENFORCED=1
}

agent=
strimzi=
offering=
failed=1
stop() {
    if [ -n "$offering" ]; then
        kill "$offering" 2>/dev/null && wait "$offering" || true
        offering=
    fi
    if [ -n "$strimzi" ]; then
        kill "$strimzi" 2>/dev/null && wait "$strimzi" || true
        strimzi=
        if [ "$failed" != 0 ]; then
            echo "What the stand-in for Strimzi said:"
            cat "$served"
        fi
        rm "$served"
    fi
    if [ -n "$agent" ]; then
        kill "$agent" 2>/dev/null && wait "$agent" || true
        agent=
        if [ "$failed" != 0 ]; then
            echo "What the NetworkPolicies refused, each flow once; a new pod is unknown at first:"
            cat "$refused"
        fi
        rm "$refused"
    fi
    wipe
}

# A cluster of its own: the stand-ins change the node's Kafka, and a run that was killed leaves objects.
wipe
"$lab" up
trap stop EXIT
"$lab" images pause python kafka postgres redis pgbouncer cnpg
stand_in ghcr.io/cloudnative-pg/postgresql:17-minimal-trixie \
    "$(sed -n 's|^  image: \(ghcr.io/cloudnative-pg/postgresql:.*\)|\1|p' charts/microfin-data/values.yaml)"
stand_in docker.io/library/redis:8.0 \
    "docker.io/library/redis:$(sed -n '/library\/redis$/,/digest/s/^    tag: "\(.*\)"/\1/p' charts/microfin-data/values.yaml)"
stand_in ghcr.io/cloudnative-pg/pgbouncer:1.25.1 \
    "$(sed -n 's|^ *image: \(ghcr.io/cloudnative-pg/pgbouncer:.*\)|\1|p' charts/microfin-data/values.yaml)"
for part in api worker operator; do
    build --target "$part" --tag "ghcr.io/microfin/$part:e2e" .
done
build --target worker --tag ghcr.io/microfin/worker:e2e-2 --label org.opencontainers.image.version=e2e-2 .
"$lab" push ghcr.io/microfin/api:e2e ghcr.io/microfin/worker:e2e ghcr.io/microfin/worker:e2e-2 \
    ghcr.io/microfin/operator:e2e
images_before
k6_and_prometheus
"$lab" install cnpg kafka
"$lab" volumes
offer_volumes_again
eval "$("$lab" env)"
strimzi
# For `make deploy` on this node: its broker, and the images that it has.
export MICROFIN_DEPLOY_KAFKA=kafka/lab MICROFIN_DEPLOY_TAG=e2e
if command -v go >/dev/null; then
    helm3
    kube_state_metrics
    k6_operator
    traefik
    export MICROFIN_E2E_HELMS="$home/bin/helm3"
fi
enforce_policies
failed=0
.venv/bin/pytest tests/e2e --durations=20 "$@" || failed=$?
# Waits until Kubernetes has deleted the tests' namespaces with their volumes; then the node stops.
kubectl get namespaces -o name | grep /microfin-e2e- |
    xargs -r kubectl wait --for=delete --timeout=120s || true
exit "$failed"
