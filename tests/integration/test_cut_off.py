"""A process that is cut off from a part says so, everywhere it is asked, and settles again.

The network swallows every byte, without an error: no connection is refused or closed. The
connections of before never carry anything again, as after a lost NAT entry.
`docs/reference/cut-off.md` has a row for each of these cases.
"""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import pytest_asyncio

from faults.proxy import ProxyControl
from microfin_local import database_home
from microfin_local.configuration import COMPONENTS, Configuration
from microfin_local.platform import Platform
from support.ports import free_port
from support.waiting import until

PROXY = Path(__file__).parents[1] / "faults" / "proxy.py"
PARTS = {"kafka": "Kafka", "postgresql": "PostgreSQL", "redis": "Redis"}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def bank(
    real_components: None, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Platform]:
    """A whole bank whose connections lead through a proxy."""
    state = tmp_path_factory.mktemp("cut-off")
    configuration = Configuration(
        state=state,
        workers=2,
        api_processes=1,
        components=COMPONENTS - {"nginx"},
        random_ports=True,
        extra={"MICROFIN_ARGON2_MEMORY": "1024", "MICROFIN_ARGON2_TIME": "1"},
        proxy=(sys.executable, "-P", str(PROXY)),
    )
    try:
        async with Platform(configuration) as platform:
            yield platform
    finally:
        database_home.forget(state)


def ways(who: str, part: str) -> list[str]:
    """Return the proxy's names of all connections of a process to a part."""
    return {
        "kafka": [f"{who}-kafka-1"],
        "postgresql": [f"{who}-pgbouncer"],
        "redis": [f"redis-{node}" for node in range(3)],
    }[part]


class Process:
    """What a worker or an API process says about itself."""

    def __init__(self, platform: Platform, who: str) -> None:
        self.who = who
        urls = platform.endpoints.workers if who == "worker" else platform.endpoints.apis
        self._client = httpx.AsyncClient(base_url=urls[0], timeout=5)

    async def silent(self, part: str) -> bool:
        """Return whether the metric says that a part does not answer."""
        lines = (await self._client.get("/metrics")).text.splitlines()
        name = f'microfin_dependency_silent_seconds{{dependency="{part}",'
        return any(line.startswith(name) and float(line.split()[-1]) > 5 for line in lines)

    async def ready(self) -> httpx.Response:
        return await self._client.get("/readyz")

    async def status(self) -> dict[str, Any]:
        return dict((await self._client.get("/status")).json())

    async def close(self) -> None:
        await self._client.aclose()


async def cut_off_is_said(process: Process, part: str) -> bool:
    ready, name = await process.ready(), PARTS[part]
    if ready.status_code != (200 if part == "redis" else 503) or name not in ready.text:
        return False
    if process.who == "worker":
        status = await process.status()
        if status["unreachable"] != [name]:
            return False
        if (status["state"] == "working") != (part == "redis"):
            return False
    return await process.silent(part)


async def all_is_well(process: Process, part: str) -> bool:
    ready = await process.ready()
    if ready.status_code != 200 or PARTS[part] in ready.text:
        return False
    if process.who == "worker":
        status = await process.status()
        if status["state"] != "working" or status["unreachable"] or status["reason"]:
            return False
    return not await process.silent(part)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("who", ["worker", "api"])
async def test_who_is_cut_off_says_so_and_settles_again(
    bank: Platform, who: str, part: str, record_property: Callable[[str, object], None]
) -> None:
    process = Process(bank, who)
    proxy = ProxyControl(bank.detours.control)

    async def measured(what: str, probe: Callable[[Process, str], Awaitable[bool]]) -> None:
        began = time.monotonic()
        await until(f"{what} ({who}, {part})", lambda: probe(process, part), 60, pause=0.2)
        record_property(what, round(time.monotonic() - began, 1))

    await until("all is well before", lambda: all_is_well(process, part))
    await proxy.put(ways(who, part), "vanish")
    try:
        await measured("noticed", cut_off_is_said)
    finally:
        await proxy.put(ways(who, part), "none")
    await measured("settled", all_is_well)
    await process.close()


async def test_no_request_pays_for_the_connections_of_before(bank: Platform) -> None:
    """Each of them is dead, and would cost a request its whole deadline."""
    process, proxy = Process(bank, "api"), ProxyControl(bank.detours.control)
    async with httpx.AsyncClient(base_url=bank.endpoints.apis[0], timeout=30) as client:
        person = {"name": "A", "email": f"{uuid4().hex}@example.com", "password": uuid4().hex}
        (await client.post("/api/signup", json=person)).raise_for_status()
        opened = (await client.post("/api/accounts", json={})).raise_for_status()
        account = f"/api/accounts/{opened.json()['accountNumber']}"

        async def read() -> int:
            return max([(await client.get(it)).status_code for it in ("/api/accounts", account)])

        assert set(await asyncio.gather(*(read() for _ in range(16)))) == {200}
        await proxy.put(ways("api", "postgresql"), "vanish")
        try:
            await until("it is said", lambda: cut_off_is_said(process, "postgresql"), 60)
        finally:
            await proxy.put(ways("api", "postgresql"), "none")
        await until("all is well again", lambda: all_is_well(process, "postgresql"), 60)
        assert set(await asyncio.gather(*(read() for _ in range(16)))) == {200}
    await process.close()


async def test_a_worker_that_never_reached_kafka_says_so_and_can_be_stopped(
    bank: Platform, tmp_path: Path
) -> None:
    ended = asyncio.Event()

    async def hear(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await ended.wait()
        writer.close()

    server = await asyncio.start_server(hear, "127.0.0.1", 0)
    port = free_port()
    environment = {
        **os.environ,
        **bank.environment("worker"),
        "MICROFIN_KAFKA": f"127.0.0.1:{server.sockets[0].getsockname()[1]}",
        "MICROFIN_PARTITION": "0",
        "MICROFIN_WORKER_PORT": str(port),
    }
    with (tmp_path / "worker.log").open("wb") as log:
        worker = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "microfin_worker"), env=environment, stdout=log, stderr=log
        )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=5) as client:

            async def says_so() -> bool:
                status = (await client.get("/status")).json()
                return status["state"] == "starting" and status["unreachable"] == ["Kafka"]

            await until("it says so", says_so, 60, not_yet=(httpx.TransportError,))
        worker.terminate()
        async with asyncio.timeout(30):
            assert await worker.wait() == 0
    finally:
        if worker.returncode is None:
            worker.kill()
            await worker.wait()
        ended.set()
        server.close()
