"""PostgreSQL and Redis for the operator's end-to-end tests, in the test's own namespace.

Substitutes: one PostgreSQL that trusts its network, where CloudNativePG would run three, and one
Redis node with all slots. Kafka is the cluster's, of which the namespace has a user (`kafka_user`).
"""

import json
import os
from typing import Any

from e2e import kafka_user
from e2e.kubernetes_cluster import apply, kubectl, until

WORKER_IMAGE = os.environ.get("MICROFIN_E2E_WORKER_IMAGE", "ghcr.io/microfin/worker:e2e")
NEXT_WORKER_IMAGE = os.environ.get(
    "MICROFIN_E2E_NEXT_WORKER_IMAGE", "ghcr.io/microfin/worker:e2e-2"
)
POSTGRES_IMAGE = os.environ.get(
    "MICROFIN_E2E_POSTGRES_IMAGE", "ghcr.io/cloudnative-pg/postgresql:17-minimal-trixie"
)
REDIS_IMAGE = os.environ.get("MICROFIN_E2E_REDIS_IMAGE", "docker.io/library/redis:8.0")
_CONTAINER = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
}
_POSTGRES = """
initdb -D /data/pg -U postgres -E UTF8 --locale=C.UTF-8 --auth=trust --no-sync > /dev/null
echo 'host all all all trust' >> /data/pg/pg_hba.conf
exec postgres -D /data/pg -h '*' -k /tmp -c fsync=off -c max_connections=100
"""
_REDIS = """
redis-server --dir /data --save '' --cluster-enabled yes --cluster-announce-ip "$POD_IP" &
until redis-cli ping > /dev/null 2>&1; do sleep 0.1; done
redis-cli cluster addslotsrange 0 16383
wait
"""


def _pod(name: str, image: str, script: str, user: int, probe: list[str]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": user,
                "fsGroup": user,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": name,
                    "image": image,
                    "command": ["bash", "-ec", script],
                    "env": [
                        {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
                    ],
                    "securityContext": _CONTAINER,
                    "readinessProbe": {"exec": {"command": probe}, "periodSeconds": 1},
                    "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                }
            ],
            "volumes": [{"name": "data", "emptyDir": {}}],
        },
    }


def _service(name: str, port: int) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"port": port}]},
    }


def settings(database: str) -> dict[str, str]:
    """Return the workers' settings for a ledger."""
    return {
        "MICROFIN_DATABASES": f"postgresql://microfin_worker@postgres:5432/{database}?sslmode=disable",
        "MICROFIN_REDIS": "redis://redis:6379",
        **kafka_user.SETTINGS,
    }


async def start(namespace: str) -> None:
    """Start PostgreSQL and Redis."""
    items: list[dict[str, Any]] = [
        _pod("postgres", POSTGRES_IMAGE, _POSTGRES, 26, ["pg_isready", "-h", "127.0.0.1"]),
        _service("postgres", 5432),
        _pod("redis", REDIS_IMAGE, _REDIS, 999, ["redis-cli", "ping"]),
        _service("redis", 6379),
    ]
    for item in items:
        item["metadata"]["namespace"] = namespace
    apply(*items)
    kubectl("-n", namespace, "wait", "--for=condition=Ready", "pod/postgres", "--timeout=120s")


async def make_ledger(namespace: str, name: str, partitions: int = 3) -> None:
    """Make a ledger in a database of its own, and the Secret of the same name for its workers."""
    query(namespace, "postgres", f"CREATE DATABASE {name}")
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace},
        "stringData": settings(name),
    }
    pod = _migration(namespace, name, partitions)
    apply(secret, pod)
    await until("microfin migrate", lambda: _phase(namespace, f"migrate-{name}") == "Succeeded")
    query(namespace, name, "ALTER ROLE microfin_worker LOGIN")


def _migration(namespace: str, name: str, partitions: int) -> dict[str, Any]:
    direct = f"postgresql://postgres@postgres:5432/{name}?sslmode=disable"
    container = {
        "name": "migrate",
        "image": WORKER_IMAGE,
        "command": ["microfin", "migrate", "--partitions", str(partitions)],
        "env": [{"name": "MICROFIN_DATABASES_DIRECT", "value": direct}],
        "securityContext": {**_CONTAINER, "readOnlyRootFilesystem": True},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"migrate-{name}", "namespace": namespace},
        "spec": {
            "restartPolicy": "OnFailure",
            "securityContext": {
                "runAsNonRoot": True,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
        },
    }


def query(namespace: str, database: str, statement: str) -> list[list[str]]:
    """Return the rows that a statement gives."""
    printed = kubectl(
        *("-n", namespace, "exec", "postgres", "--", "psql", "-h", "127.0.0.1", "-U", "postgres"),
        *("-At", "-d", database, "-c", statement),
    )
    return [line.split("|") for line in printed.split()]


def _phase(namespace: str, pod: str) -> str:
    return str(
        json.loads(kubectl("-n", namespace, "get", "pod", pod, "-o", "json"))["status"]["phase"]
    )


def routing(namespace: str, ledger: str) -> tuple[int, int]:
    """Return generation and partitions as they are in the database."""
    statement = "SELECT generation, partition_count FROM routing"
    ((generation, count),) = query(namespace, ledger, statement)
    return int(generation), int(count)


def claims(namespace: str, ledger: str) -> dict[int, int]:
    """Return how often each partition was claimed."""
    rows = query(namespace, ledger, "SELECT partition, epoch FROM partitions ORDER BY 1")
    return {int(partition): int(epoch) for partition, epoch in rows}
