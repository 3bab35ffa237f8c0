"""Cuts a bank off from one of its dependencies by policy, and watches what notices it."""

import asyncio
import contextlib
import json
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

from e2e.kubernetes_bank import Bank
from e2e.kubernetes_cluster import apply, get, kubectl, until

Dependency = Literal["Kafka", "PostgreSQL", "the pooler", "Redis"]

_POLICIES: Final[dict[Dependency, tuple[str, str, int]]] = {
    "Kafka": ("microfin-kafka", "ingress", 9093),
    "PostgreSQL": ("microfin-pooler-0", "egress", 5432),
    "the pooler": ("microfin-pooler-0", "ingress", 5432),
    "Redis": ("microfin-redis", "ingress", 6379),
}
"""The policy, its direction, and the one port of the rules that let the bank's traffic through."""

_READ_FOR_EVER: Final = """
import sys, time, urllib.error, urllib.request as web
while True:
    try:
        page = web.urlopen(sys.argv[1], timeout=5).read()
    except urllib.error.HTTPError as refused:
        page = refused.read()
    print(page.decode().strip(), flush=True)
    time.sleep(0.2)
"""


@contextlib.contextmanager
def cut_off(bank: Bank, dependency: Dependency) -> Iterator[None]:
    """Let no packet of the bank's pods reach a dependency while the block runs."""
    if dependency == "Kafka" and bank.platform.kafka is not None:
        policy = _deny_all(bank.platform.kafka.namespace)
        place = ("-n", bank.platform.kafka.namespace)
        apply(policy)
        try:
            yield
        finally:
            kubectl(*place, "delete", "networkpolicy", policy["metadata"]["name"])
        return
    name, direction, port = _POLICIES[dependency]
    rules = get(f"networkpolicy/{name}", bank.namespace)["spec"][direction]
    kept = [rule for rule in rules if {it["port"] for it in rule["ports"]} != {port}]
    assert len(kept) < len(rules), f"no rule of {name} is for port {port} alone"
    _set_rules(bank, name, direction, kept)
    try:
        yield
    finally:
        _set_rules(bank, name, direction, rules)


def _deny_all(namespace: str) -> dict[str, Any]:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "cut-off", "namespace": namespace},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
    }


def _set_rules(bank: Bank, policy: str, direction: str, rules: list[dict[str, Any]]) -> None:
    change = [{"op": "replace", "path": f"/spec/{direction}", "value": rules}]
    bank.kubectl("patch", "networkpolicy", policy, "--type=json", "-p", json.dumps(change))


class Page:
    """A page of a pod, read from inside the pod five times a second. `latest` is its JSON."""

    def __init__(self) -> None:
        self.latest: dict[str, Any] = {}

    async def follow(self, output: asyncio.StreamReader) -> None:
        """Read until the pod or its reader ends."""
        async for line in output:
            self.latest = json.loads(line)


@contextlib.asynccontextmanager
async def page_of(bank: Bank, pod: str, url: str) -> AsyncIterator[Page]:
    """Give a page while the block runs."""
    inside = ("-n", bank.namespace, "exec", pod, "--", "python", "-c", _READ_FOR_EVER, url)
    process = await asyncio.create_subprocess_exec("kubectl", *inside, stdout=PIPE)
    assert process.stdout is not None
    page = Page()
    following = asyncio.create_task(page.follow(process.stdout))
    try:
        await until(f"{url} of {pod}", lambda: bool(page.latest), 30)
        yield page
    finally:
        process.terminate()
        await process.wait()
        following.cancel()


@dataclass
class Watched:
    """What a person can see of a bank."""

    bank: Bank
    worker: Page
    api: Page

    def worker_works(self) -> bool:
        """Whether the worker's /status is without complaint."""
        status = self.worker.latest
        return status["state"] == "working" and not status["reason"] and not status["degraded"]

    def api_is_well(self) -> bool:
        """Whether the API's /readyz is without complaint."""
        health = self.api.latest
        return health["status"] == "ready" and not health.get("degraded")

    def workers_are_ready(self) -> bool:
        """Whether Kubernetes counts all pods of workers as ready."""
        return self._pods_are_ready("worker")

    def apis_are_ready(self) -> bool:
        """Whether Kubernetes counts all pods of the API as ready."""
        return self._pods_are_ready("api")

    def _pods_are_ready(self, component: str) -> bool:
        selector = f"app.kubernetes.io/component={component}"
        listed = self.bank.kubectl("get", "pods", "-l", selector, "-o", "json")
        return all(
            any(it["type"] == "Ready" and it["status"] == "True" for it in conditions)
            for pod in json.loads(listed)["items"]
            if (conditions := pod["status"]["conditions"])
        )

    def is_ready(self) -> bool:
        """Whether the MicrofinCluster is."""
        conditions = get("mfc/microfin", self.bank.namespace)["status"]["conditions"]
        return any(it["type"] == "Ready" and it["status"] == "True" for it in conditions)


async def all_become(
    wanted: bool, probes: dict[str, Callable[[], bool]], patience: float
) -> dict[str, float]:
    """Wait until each probe returns `wanted`; return after how many seconds each did."""
    began = time.monotonic()

    async def one(name: str, probe: Callable[[], bool]) -> tuple[str, float]:
        await until(f"{name} to become {wanted}", lambda: probe() is wanted, patience)
        return name, round(time.monotonic() - began, 1)

    return dict(await asyncio.gather(*(one(*it) for it in probes.items())))


@contextlib.asynccontextmanager
async def watched(bank: Bank) -> AsyncIterator[Watched]:
    """Watch a worker's /status and an API's /readyz while the block runs."""
    api = bank.pods("app.kubernetes.io/component=api")[0]
    async with (
        page_of(bank, "microfin-worker-0", "http://127.0.0.1:8081/status") as worker,
        page_of(bank, api, "http://127.0.0.1:8080/readyz") as health,
    ):
        yield Watched(bank, worker, health)
