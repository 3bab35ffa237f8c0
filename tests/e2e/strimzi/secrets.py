"""Secrets: their bytes read and written."""

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any

from e2e.kubernetes_cluster import kubectl
from e2e.strimzi import NAMESPACE


def read(name: str) -> dict[str, bytes]:
    """Return the keys of a Secret of Kafka's namespace; nothing if it is not there."""
    found = kubectl("-n", NAMESPACE, "get", "secret", name, "--ignore-not-found", "-o", "json")
    return decoded(json.loads(found)) if found.strip() else {}


def decoded(secret: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the keys of a Secret."""
    return {key: b64decode(value) for key, value in (secret.get("data") or {}).items()}


def secret(name: str, data: Mapping[str, bytes], **metadata: Any) -> dict[str, Any]:
    """Return a Secret."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "metadata": {"name": name, "namespace": NAMESPACE, **metadata},
        "data": {key: b64encode(value).decode() for key, value in data.items()},
    }


def put(*items: dict[str, Any], manager: str = "strimzi-cluster-operator") -> None:
    """Let the cluster have these objects; a key of a Secret that is not named goes."""
    listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(items)})
    options = ("--server-side", "--force-conflicts", f"--field-manager={manager}")
    kubectl("apply", *options, "-f", "-", stdin=listed)
