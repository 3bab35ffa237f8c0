"""Traefik in the cluster, as an ingress controller and as a Gateway's controller.

MICROFIN_E2E_TRAEFIK names the folder of its Go module, in which its roles are, and
MICROFIN_E2E_GATEWAY_API the folder of the Gateway API's definitions. `tests/e2e/on_lab.sh` has made
the image.
"""

import contextlib
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.kubernetes_cluster import ROOT, apply, get, kubectl, own_namespace
from microfin_deploy.commands import listed

INGRESS_CLASS = "nginx"
_GATEWAY_CLASS = "microfin-e2e"
_VALUES = ROOT / "k8s/traefik/values.yaml"
_ROLES = "docs/content/reference/dynamic-configuration"
# What Traefik's chart gives it.
_CHARTS_ARGUMENTS = (
    "--entrypoints.web.address=:8000",
    "--entrypoints.websecure.address=:8443",
    "--entrypoints.websecure.http.tls=true",
    "--entrypoints.traefik.address=:8080",
    "--ping=true",
    "--providers.kubernetesingressnginx=true",
    "--providers.kubernetesgateway=true",
)
_NAME = "traefik"
_LABELS = {"app.kubernetes.io/name": _NAME, "app.kubernetes.io/component": "controller"}


@dataclass(frozen=True)
class Traefik:
    """One that runs, with the address of its Service and that of its pod."""

    namespace: str
    address: str
    pod_address: str


@contextlib.asynccontextmanager
async def traefik() -> AsyncIterator[Traefik]:
    """Run it in a namespace of its own while the block runs, with the settings of k8s/traefik.

    Skips where there is none, and where another controller serves already.
    """
    module, definitions = (
        os.environ.get(f"MICROFIN_E2E_{it}") for it in ("TRAEFIK", "GATEWAY_API")
    )
    if module is None or definitions is None:
        pytest.skip("MICROFIN_E2E_TRAEFIK and MICROFIN_E2E_GATEWAY_API name no Traefik")
    if listed("ingressclasses"):
        pytest.skip("this cluster has an ingress controller already")
    async with own_namespace() as namespace:
        roles = list(_roles(Path(module), namespace))
        try:
            _define(Path(definitions))
            version = module.rpartition("@")[2]
            apply(*roles, *_classes(), *_controller(namespace, version))
            rollout = ("rollout", "status", f"deployment/{_NAME}", "--timeout=120s")
            kubectl("-n", namespace, *rollout)
            (pod,) = get("pods", namespace)["items"]
            service = get(f"service/{_NAME}", namespace)
            yield Traefik(namespace, service["spec"]["clusterIP"], pod["status"]["podIP"])
        finally:
            for item in (*roles, *_classes()):
                what = f"{item['kind'].lower()}/{item['metadata']['name']}"
                kubectl("-n", namespace, "delete", what, "--ignore-not-found")


def _define(folder: Path) -> None:
    """Make the kinds of the Gateway API known, and wait until they are."""
    files = sorted(folder.glob("gateway.networking.k8s.io_*.yaml"))
    names = [str(file) for file in files if "_vap_" not in file.name]
    chosen = [argument for name in names for argument in ("-f", name)]
    kubectl("apply", "--server-side", "--force-conflicts", *chosen)
    kubectl("wait", "--for=condition=Established", "--timeout=60s", *chosen)


def gateway(namespace: str, secret: str) -> dict[str, Any]:
    """Return a Gateway `public` with a certificate, which accepts routes from every namespace."""
    listener = {
        "name": "https",
        "protocol": "HTTPS",
        "port": 8443,  # that of Traefik's pod
        "tls": {"certificateRefs": [{"name": secret}]},
        "allowedRoutes": {"namespaces": {"from": "All"}},
    }
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": "public", "namespace": namespace},
        "spec": {"gatewayClassName": _GATEWAY_CLASS, "listeners": [listener]},
    }


def _roles(module: Path, namespace: str) -> Iterator[dict[str, Any]]:
    """Yield the roles that Traefik's documentation gives to its two providers."""
    for name in ("kubernetes-ingress-nginx-rbac.yml", "kubernetes-gateway-rbac.yml"):
        for item in yaml.safe_load_all((module / _ROLES / name).read_text(encoding="utf-8")):
            item["metadata"]["name"] = f"{namespace}-{item['metadata']['name']}"
            if item["kind"] == "ClusterRoleBinding":
                item["roleRef"]["name"] = f"{namespace}-{item['roleRef']['name']}"
                who = {"kind": "ServiceAccount", "name": _NAME, "namespace": namespace}
                item["subjects"] = [who]
            yield item


def _classes() -> Iterator[dict[str, Any]]:
    yield {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IngressClass",
        "metadata": {"name": INGRESS_CLASS},
        "spec": {"controller": "k8s.io/ingress-nginx"},
    }
    yield {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "GatewayClass",
        "metadata": {"name": _GATEWAY_CLASS},
        "spec": {"controllerName": "traefik.io/gateway-controller"},
    }


def _controller(namespace: str, version: str) -> Iterator[dict[str, Any]]:
    metadata = {"name": _NAME, "namespace": namespace, "labels": _LABELS}
    yield {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}
    ports = [
        {"name": name, "port": port, "targetPort": inside}
        for name, port, inside in (("web", 80, 8000), ("websecure", 443, 8443))
    ]
    service = {"selector": _LABELS, "ports": ports}
    yield {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": service}
    template = {"metadata": {"labels": _LABELS}, "spec": _pod(version)}
    yield {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {"replicas": 1, "selector": {"matchLabels": _LABELS}, "template": template},
    }


def _pod(version: str) -> dict[str, Any]:
    values = yaml.safe_load(_VALUES.read_text(encoding="utf-8"))
    container = {
        "name": _NAME,
        "image": f"docker.io/library/traefik:{version}",
        "args": [*_CHARTS_ARGUMENTS, *values["additionalArguments"]],
        "readinessProbe": {"httpGet": {"path": "/ping", "port": 8080}, "periodSeconds": 1},
        "volumeMounts": [{"name": "temporary", "mountPath": "/tmp"}],  # noqa: S108 - in the pod
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
    }
    security = {
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    return {
        "serviceAccountName": _NAME,
        "securityContext": security,
        "containers": [container],
        "volumes": [{"name": "temporary", "emptyDir": {}}],
    }
