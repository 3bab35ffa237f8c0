"""An operator's life without kopf: passes, until it is killed or has nothing more to do."""

import asyncio
import contextlib
from datetime import UTC, datetime
from typing import Any

from kubernetes.aio.client import ApiClient, Configuration

from microfin_operator.kinds import MICROFIN_CLUSTER, KubernetesObject
from microfin_operator.kubernetes_api import KubernetesApi
from microfin_operator.reconcile import reconcile
from microfin_operator.worker_reports import WorkerReader
from support.operator.emulated_api import EmulatedApi

_WRITES = ("POST", "PATCH", "DELETE", "PUT")


class Killed(BaseException):
    """The process is gone."""


class MortalApi(KubernetesApi):
    """Dies right before a write. That is also right after the one before: what the operator knew
    is gone, and the cluster is the same."""

    def __init__(self, url: str, writes: int | None = None) -> None:
        configuration = Configuration(host=url)
        super().__init__(ApiClient(configuration), timeout=10)
        self.left = writes
        self.writes = 0

    async def _request(self, method: str, *arguments: Any, **options: Any) -> tuple[int, Any]:
        if method not in _WRITES:
            return await super()._request(method, *arguments, **options)
        if self.writes == self.left:
            raise Killed
        self.writes += 1
        return await super()._request(method, *arguments, **options)


async def live(
    emulated: EmulatedApi, port: int, *, writes: int | None = None, patience: float = 20
) -> int:
    """Pass over the cluster until it is Ready, or die at the given write; return the writes."""
    api = MortalApi(str(emulated.url).rstrip("/"), writes)
    workers = WorkerReader(port)
    try:
        async with asyncio.timeout(patience):
            while True:
                done = await reconcile(api, workers, "apps", "bank", datetime.now(UTC))
                if done is not None and not done.changed and is_ready(done.plan.status):
                    return api.writes
                await asyncio.sleep(0.03)  # what other controllers do meanwhile
    finally:
        with contextlib.suppress(Exception):
            await workers.close()
            await api.close()


def is_ready(status: KubernetesObject) -> bool:
    """Whether the status says Ready."""
    return any(
        it["type"] == "Ready" and it["status"] == "True" for it in status.get("conditions", ())
    )


def status_of(api: EmulatedApi) -> KubernetesObject:
    """Return the cluster's status in the API server."""
    item = api.item(MICROFIN_CLUSTER, "apps", "bank")
    assert item is not None
    found: KubernetesObject = item.get("status", {})
    return found
