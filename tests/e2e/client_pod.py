"""Pods that use a bank: where they are, and how they reach it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from e2e.kubernetes_cluster import kubectl

_AUTHORITY = "/authority"


@dataclass(frozen=True)
class Client:
    """A namespace from which a bank is used, and the bank's URL there.

    `hosts` are names that no resolver knows, all of one `address`. `authority` is a ConfigMap whose
    ca.crt has signed the bank's certificate.
    """

    namespace: str
    url: str
    image: str
    labels: Mapping[str, str] = field(default_factory=dict)
    hosts: tuple[str, ...] = ()
    address: str = ""
    authority: str = ""

    def kubectl(self, *arguments: str) -> str:
        """Run kubectl in the client's namespace."""
        return kubectl("-n", self.namespace, *arguments)

    def pod(self, name: str, *command: str) -> dict[str, Any]:
        """Return a pod that runs a command once."""
        mounts = [{"name": "temporary", "mountPath": "/tmp"}]  # noqa: S108 - in the pod
        volumes: list[dict[str, Any]] = [{"name": "temporary", "emptyDir": {}}]
        variables = []
        aliases = [{"ip": self.address, "hostnames": list(self.hosts)}] if self.hosts else []
        if self.authority:
            mounts.append({"name": "authority", "mountPath": _AUTHORITY})
            volumes.append({"name": "authority", "configMap": {"name": self.authority}})
            variables.append({"name": "SSL_CERT_FILE", "value": f"{_AUTHORITY}/ca.crt"})
        container = {
            "name": "client",
            "image": self.image,
            "command": list(command),
            "env": variables,
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
                "readOnlyRootFilesystem": True,
            },
            "volumeMounts": mounts,
        }
        metadata = {"name": name, "namespace": self.namespace, "labels": dict(self.labels)}
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": metadata,
            "spec": {
                "restartPolicy": "Never",
                "automountServiceAccountToken": False,
                "enableServiceLinks": False,
                "hostAliases": aliases,
                "securityContext": {
                    "runAsNonRoot": True,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "containers": [container],
                "volumes": volumes,
            },
        }
