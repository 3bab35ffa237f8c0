"""The cluster of KUBECONFIG, as the end-to-end tests use it."""

import asyncio
import contextlib
import json
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from microfin_operator.kinds import Kind, KubernetesObject
from microfin_operator.kubernetes_api import KubernetesApi, connect
from support import waiting

ROOT = Path(__file__).resolve().parents[2]
CUSTOM_RESOURCE = ROOT / "charts/microfin-operator/files/microfinclusters.yaml"


def kubectl(*arguments: str, check: bool = True, stdin: str | None = None) -> str:
    """Run kubectl and return what it printed; its error is the test's error."""
    done = subprocess.run(
        ["kubectl", *arguments], capture_output=True, text=True, input=stdin, check=False
    )
    if check and done.returncode:
        raise AssertionError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout if check else done.stdout + done.stderr


def apply(*items: KubernetesObject) -> None:
    """Apply objects."""
    listed = {"apiVersion": "v1", "kind": "List", "items": list(items)}
    kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=json.dumps(listed))


def get(what: str, namespace: str) -> Any:
    """Return an object, or a list of them."""
    return json.loads(kubectl("-n", namespace, "get", what, "-o", "json"))


async def until(what: str, probe: Callable[[], bool], patience: float = 120) -> float:
    """Wait until `probe`, which calls kubectl, is true; return the seconds that it took."""
    began = time.monotonic()
    await waiting.until(what, partial(asyncio.to_thread, probe), patience, pause=0.3)
    return time.monotonic() - began


@contextlib.asynccontextmanager
async def own_namespace() -> AsyncIterator[str]:
    """Give a namespace that enforces the restricted Pod Security Standard, and delete it after."""
    name = f"microfin-e2e-{uuid4().hex[:6]}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    try:
        yield name
    finally:
        kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")


@contextlib.asynccontextmanager
async def api_server() -> AsyncIterator[KubernetesApi]:
    """Give a client of the API server."""
    api = await connect(30)
    try:
        yield api
    finally:
        await api.close()


async def refusal(
    api: KubernetesApi, method: str, kind: Kind, item: KubernetesObject, subresource: str = ""
) -> str:
    """Return why the API server refuses an object, or nothing where it would take it."""
    metadata = item["metadata"]
    name = "" if method == "POST" else metadata["name"]
    status, answer = await api._request(
        method,
        kind.path(metadata["namespace"], name, subresource),
        {"dryRun": "All", "fieldManager": "test", "fieldValidation": "Strict"},
        item,
        "application/json" if method == "POST" else "application/merge-patch+json",
    )
    if status < 300:
        return ""
    assert status == 422, answer
    return str(answer["message"])
