"""A Prometheus in a namespace of its own, to which a load run writes its samples."""

import os
from typing import Any

from e2e.kubernetes_cluster import apply, kubectl

IMAGE = os.environ.get("MICROFIN_E2E_PROMETHEUS_IMAGE", "docker.io/prom/prometheus:v2.53.5")
RUNS_ALERT = "MicrofinHotAccount"
_PORT = 9090


def start(namespace: str, bank: str) -> str:
    """Start it and return where it takes samples. While those of hot-account.js come, a critical
    alert of the bank's namespace fires."""
    apply(_configuration(namespace, bank), _service(namespace), _pod(namespace))
    kubectl("-n", namespace, "wait", "--for=condition=Ready", "pod/prometheus", "--timeout=120s")
    return f"http://prometheus.{namespace}:{_PORT}/api/v1/write"


def _configuration(namespace: str, bank: str) -> dict[str, Any]:
    rules = f"""\
groups:
  - name: microfin
    rules:
      - alert: {RUNS_ALERT}
        expr: count(k6_iterations_total{{testid=~"load-hot-account-.*"}}) > 0
        labels: {{severity: critical, namespace: {bank}}}
"""
    return {
        **_head("v1", "ConfigMap", namespace),
        "data": {
            "prometheus.yml": "global: {evaluation_interval: 1s}\nrule_files: [rules.yml]\n",
            "rules.yml": rules,
        },
    }


def _service(namespace: str) -> dict[str, Any]:
    ports = [{"port": _PORT}]
    return {
        **_head("v1", "Service", namespace),
        "spec": {"selector": {"app": "prometheus"}, "ports": ports},
    }


def _pod(namespace: str) -> dict[str, Any]:
    container = {
        "name": "prometheus",
        "image": IMAGE,
        "args": [
            "--config.file=/configuration/prometheus.yml",
            "--storage.tsdb.path=/data",
            "--web.enable-remote-write-receiver",
        ],
        "readinessProbe": {"httpGet": {"path": "/-/ready", "port": _PORT}, "periodSeconds": 1},
        "volumeMounts": [
            {"name": "configuration", "mountPath": "/configuration"},
            {"name": "data", "mountPath": "/data"},
        ],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
    }
    security = {
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "fsGroup": 65532,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    volumes = [
        {"name": "configuration", "configMap": {"name": "prometheus"}},
        {"name": "data", "emptyDir": {}},
    ]
    return {
        **_head("v1", "Pod", namespace),
        "spec": {"securityContext": security, "containers": [container], "volumes": volumes},
    }


def _head(version: str, kind: str, namespace: str) -> dict[str, Any]:
    metadata = {"name": "prometheus", "namespace": namespace, "labels": {"app": "prometheus"}}
    return {"apiVersion": version, "kind": kind, "metadata": metadata}
