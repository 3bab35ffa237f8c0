"""Fifty clusters on one operator, in a process of its own."""

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import msgspec
import pytest
import pytest_asyncio
from aiohttp import web

from microfin_operator.custom_resource import read_cluster
from microfin_operator.kinds import (
    DISRUPTION_BUDGET,
    KAFKA_TOPIC,
    MICROFIN_CLUSTER,
    POD,
    SERVICE,
    STATEFUL_SET,
)
from support.operator import states
from support.operator.emulated_api import EmulatedApi
from support.operator.process import is_ready
from support.ports import free_port
from support.waiting import until

CLUSTERS = 50
PARTITIONS = 3
MOST_MEMORY = 120 * 2**20


async def at_rest(api: EmulatedApi, name: str) -> None:
    """Put a cluster of which everything is as desired, and nothing but its status is missing."""
    raw = states.resource(topic={"name": f"{name}.commands", "strimzi": states.STRIMZI})
    raw["metadata"] |= {"name": name, "uid": f"uid-{name}"}
    of = read_cluster(raw)
    found = states.workload(of, PARTITIONS)
    await api.put(MICROFIN_CLUSTER, raw)
    await api.put(KAFKA_TOPIC, states.topic(of, PARTITIONS))
    await api.put(STATEFUL_SET, found["stateful_set"])
    await api.put(SERVICE, found["service"])
    await api.put(DISRUPTION_BUDGET, found["disruption_budget"])
    for ordinal, pod in enumerate(states.pods(of, PARTITIONS)):
        pod["metadata"]["name"] = f"{name}-worker-{ordinal}"
        pod["status"]["podIP"] = f"127.1.0.{ordinal + 1}"
        await api.put(POD, pod)


async def report_status(request: web.Request) -> web.Response:
    assert request.transport is not None
    address = request.transport.get_extra_info("sockname")[0]
    report = states.reports(PARTITIONS)[int(address.rpartition(".")[2]) - 1]
    return web.json_response(msgspec.to_builtins(report))


@pytest_asyncio.fixture
async def worker_port() -> AsyncIterator[int]:
    """The port on which all workers answer."""
    application = web.Application()
    application.add_routes([web.get("/status", report_status)])
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "0.0.0.0", 0).start()  # noqa: S104 - loopback addresses
    yield runner.addresses[0][1]
    await runner.cleanup()


@pytest.mark.long
async def test_fifty_clusters_fit(api: EmulatedApi, worker_port: int, kubeconfig: Path) -> None:
    for number in range(CLUSTERS):
        await at_rest(api, f"bank-{number}")
    port = free_port()
    settings = {"HTTP_HOST": "127.0.0.1", "HTTP_PORT": port, "WORKER_PORT": worker_port}
    operator = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "microfin_operator"),
        env={
            **os.environ,
            "KUBECONFIG": str(kubeconfig),
            **{f"MICROFIN_OPERATOR_{name}": str(value) for name, value in settings.items()},
        },
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:

        def all_ready() -> bool:
            return all(is_ready(it.get("status", {})) for it in api.items(MICROFIN_CLUSTER))

        await until("all clusters are Ready", all_ready, seconds=120, pause=0.2)
        requests = -1
        while requests != api.asked:
            requests = api.asked
            await asyncio.sleep(2)
        memory = resident(operator.pid)
        print(f"{memory / 2**20:.0f} MiB with {CLUSTERS} clusters, {requests} requests")
        assert memory < MOST_MEMORY
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{port}/metrics") as response,
        ):
            running = re.findall(r'phase="Running"\} 1\.0', await response.text())
        assert len(running) == CLUSTERS
    finally:
        operator.terminate()
        assert await operator.wait() == 0


def resident(process: int) -> int:
    """Return the bytes that a process holds in memory."""
    pages = Path(f"/proc/{process}/statm").read_text(encoding="utf-8").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
