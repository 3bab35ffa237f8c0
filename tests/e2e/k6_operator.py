"""The k6 operator in the cluster: the one that is there, or one from its Go module."""

import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from kubernetes_cluster import apply, kubectl

from microfin_deploy.commands import exists

IMAGE = "ghcr.io/grafana/k6-operator:controller"
_NAMESPACE = "k6-operator-system"  # as of its chart; the run's NetworkPolicy lets it in
_NAME = "k6-operator"


@contextlib.asynccontextmanager
async def k6_operator() -> AsyncIterator[None]:
    """Run one while the block runs. Skips where there is none and none to be put there.

    MICROFIN_E2E_K6_OPERATOR names the folder of its Go module, whose definitions are applied;
    `tests/e2e/on_lab.sh` has made its image. In a test it may do anything in the cluster.
    """
    if exists("crd/testruns.k6.io"):
        yield
        return
    folder = os.environ.get("MICROFIN_E2E_K6_OPERATOR")
    if folder is None:
        pytest.skip(
            "There is no k6 operator in this cluster, and MICROFIN_E2E_K6_OPERATOR names none."
        )
    definitions = str(Path(folder) / "config/crd/bases")
    try:
        kubectl("apply", "--server-side", "-f", definitions)
        _install()
        kubectl("-n", _NAMESPACE, "rollout", "status", f"deployment/{_NAME}", "--timeout=120s")
        yield
    finally:
        kubectl("delete", "clusterrolebinding", _NAME, "--ignore-not-found")
        kubectl("delete", "namespace", _NAMESPACE, "--ignore-not-found", "--timeout=120s")
        kubectl("delete", "-f", definitions, "--ignore-not-found")


def _install() -> None:
    head = {"name": _NAME, "namespace": _NAMESPACE}
    labels = {"app.kubernetes.io/name": _NAME}
    container = {
        "name": "manager",
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": 8081}, "periodSeconds": 1},
    }
    apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": _NAMESPACE}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": head},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": _NAME},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": "cluster-admin",
            },
            "subjects": [{"kind": "ServiceAccount", **head}],
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {**head, "labels": labels},
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {"serviceAccountName": _NAME, "containers": [container]},
                },
            },
        },
    )
