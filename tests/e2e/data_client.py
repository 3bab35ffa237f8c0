"""A pod next to the data, with the worker's image, that runs pieces of Python as microfin does."""

import json
import subprocess
from typing import Any, Final

from e2e import kafka_user
from e2e.data_plane import WORKER_IMAGE
from e2e.kubernetes_cluster import apply, kubectl

POD: Final = "client"
TOPIC: Final = "microfin.commands"
_OWNER: Final = "microfin-postgres-0-app"
_PASSWORDS: Final = {
    "OWNER": (_OWNER, "password"),
    "WORKER": ("microfin-postgres-worker", "password"),
    "API": ("microfin-postgres-api", "password"),
    "AUDITOR": ("microfin-postgres-auditor", "password"),
    "REDIS_ADMIN": ("microfin-redis", "admin-password"),
    "REDIS_WORKER": ("microfin-redis", "worker-password"),
    "REDIS_API": ("microfin-redis", "api-password"),
}
ADMITTED: Final = "networkPolicy.clients[0].podSelector.matchLabels.guest=tests"
"""The value of the chart by which its policies let the pod in."""
VERIFIED: Final = "sslmode=verify-full&sslrootcert=/ca/ca.crt"


def pod(namespace: str, name: str, command: list[str], topic: str = TOPIC) -> dict[str, Any]:
    """Return a pod that knows all passwords and the databases' CA."""
    secrets = [
        {
            "name": variable,
            "valueFrom": {"secretKeyRef": {"name": secret, "key": key}},
        }
        for variable, (secret, key) in _PASSWORDS.items()
    ]
    settings = {
        "MICROFIN_DATABASES": (
            f"postgresql://microfin_worker:$(WORKER)@microfin-pooler-0:5432/microfin?{VERIFIED}"
        ),
        "MICROFIN_DATABASES_DIRECT": (
            f"postgresql://microfin_owner:$(OWNER)@microfin-postgres-0-rw:5432/microfin?{VERIFIED}"
        ),
        "MICROFIN_DATABASE_STATEMENT_CACHE": "0",
        "MICROFIN_REDIS": "redis://microfin_worker:$(REDIS_WORKER)@microfin-redis:6379",
        **kafka_user.SETTINGS,
        "MICROFIN_TOPIC": topic,
        "MICROFIN_WORKER_HOST": "0.0.0.0",  # noqa: S104 - a pod's own
        "HOME": "/tmp",  # noqa: S108 - a pod's own
    }
    container = {
        "name": name,
        "image": WORKER_IMAGE,
        "command": command,
        "env": [*secrets, *({"name": it, "value": text} for it, text in settings.items())],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": [{"name": "ca", "mountPath": "/ca", "readOnly": True}, kafka_user.MOUNT],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {"guest": "tests"},
        },
        "spec": {
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 1,
            "securityContext": {
                "runAsNonRoot": True,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
            "volumes": [
                kafka_user.VOLUME,
                {
                    "name": "ca",
                    "secret": {
                        "secretName": "microfin-postgres-0-ca",
                        "items": [{"key": "ca.crt", "path": "ca.crt"}],
                    },
                },
            ],
        },
    }


def start(namespace: str, topic: str) -> None:
    """Start the pod."""
    apply(pod(namespace, POD, ["sleep", "infinity"], topic))
    kubectl("-n", namespace, "wait", "--for=condition=Ready", f"pod/{POD}", "--timeout=60s")


def microfin(namespace: str, *arguments: str) -> str:
    """Run microfin's command line in the pod, as the databases' owner."""
    as_owner = ("env", "-u", "MICROFIN_DATABASES", "microfin")
    return kubectl("-n", namespace, "exec", POD, "--", *as_owner, *arguments)


def run(namespace: str, script: str, *arguments: str) -> Any:
    """Run Python in the pod, and return what it printed as JSON."""
    done = subprocess.run(
        ["kubectl", "-n", namespace, "exec", "-i", POD, "--", "python", "-", *arguments],
        input=script,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
