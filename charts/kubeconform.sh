#!/bin/sh
# Judges what the charts render, with every values file and with what is off in all of them, by the
# schemas of Kubernetes and of the vendors' CustomResourceDefinitions. It needs no cluster, and of
# the internet only what helm and go fetch once: the schemas are made here, from Go modules.
# STRIMZI_CRDS names a folder with Strimzi's definitions, which are in no Go module; otherwise helm
# fetches them.
set -eu
cd "$(dirname "$0")"
python=${PYTHON:-../.venv/bin/python}
strimzi=${STRIMZI_CRDS:-}

runner=${KUBECONFORM:-$(command -v kubeconform || true)}
if [ -z "$runner" ]; then
    runner=$(go env GOPATH)/bin/kubeconform
    [ -x "$runner" ] || go install github.com/yannh/kubeconform/cmd/kubeconform@v0.8.0
fi
command -v "$python" >/dev/null || {
    echo "$0: there is no $python: run make setup, or name one with PyYAML in PYTHON" >&2
    exit 1
}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Prints the folder of a Go module, which is downloaded where it is missing.
module() {
    go mod download -json "$1" >"$work/module" || { cat "$work/module" >&2; return 1; }
    sed -n 's/.*"Dir": "\(.*\)".*/\1/p' "$work/module"
}

# CloudNativePG and Strimzi as k8s/ installs them; the others' kinds are stable.
kubernetes=$(module k8s.io/kubernetes@v1.34.0)
cnpg=$(module github.com/cloudnative-pg/cloudnative-pg@v1.30.1)
prometheus=$(module github.com/prometheus-operator/prometheus-operator@v0.85.0)
gateway=$(module sigs.k8s.io/gateway-api@v1.5.0)
if [ ! -d "$strimzi" ]; then
    strimzi=$work/strimzi
    mkdir "$strimzi"
    helm show crds oci://quay.io/strimzi-helm/strimzi-kafka-operator --version 1.2.0 \
        >"$strimzi/all.yaml"
fi

openapi=$kubernetes/api/openapi-spec/v3
"$python" json_schemas.py "$work/schemas" microfin-operator/files/microfinclusters.yaml \
    "$openapi"/api__v1_openapi.json \
    "$openapi"/apis__apiextensions.k8s.io__v1_openapi.json \
    "$openapi"/apis__apps__v1_openapi.json \
    "$openapi"/apis__autoscaling__v2_openapi.json \
    "$openapi"/apis__batch__v1_openapi.json \
    "$openapi"/apis__networking.k8s.io__v1_openapi.json \
    "$openapi"/apis__policy__v1_openapi.json \
    "$openapi"/apis__rbac.authorization.k8s.io__v1_openapi.json \
    "$strimzi"/*.yaml \
    "$cnpg"/config/crd/bases/*.yaml \
    "$prometheus"/example/prometheus-operator-crd/*_podmonitors.yaml \
    "$prometheus"/example/prometheus-operator-crd/*_prometheusrules.yaml \
    "$prometheus"/example/prometheus-operator-crd/*_servicemonitors.yaml \
    "$gateway"/config/crd/standard/*_httproutes.yaml

failed=0
judge() {
    echo "helm template $*"
    helm template bank "$@" --namespace money >"$work/rendered.yaml"
    "$runner" -strict -summary \
        -schema-location "$work/schemas/{{.Group}}/{{.ResourceKind}}_{{.ResourceAPIVersion}}.json" \
        "$work/rendered.yaml" || failed=1
}

for values in */values*.yaml; do
    case $values in
        microfin-operator/*) judge microfin-operator --values "$values" --set watchAllNamespaces=true ;;
        *) judge "${values%/*}" --values "$values" ;;
    esac
done
judge microfin-operator --set 'metrics.podMonitor.enabled=true,namespaces={apps,data}'
judge microfin --set 'gateway.enabled=true,gateway.parentRefs[0].name=public'
judge microfin --set 'postgres.shards=2,topic.strimzi.cluster=,kafka.tls=false,redis.secret='
judge microfin-data --set 'postgres.shards=2,postgres.backup.enabled=true,postgres.backup.objectStore=store'
judge microfin-data --set 'redis.tls.enabled=true,redis.tls.secret=redis-tls,redis.exporter.enabled=true,ipFamilyPolicy=PreferDualStack,ipFamilies={IPv6,IPv4}'
exit "$failed"
