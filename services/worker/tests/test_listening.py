"""The worker's own pages are at all addresses of its pod, of IPv4 and of IPv6."""

import asyncio

import httpx
import pytest

from microfin.process.settings import WorkerSettings
from microfin_worker.health import health_server
from microfin_worker.status import Status
from support.ports import free_port
from support.waiting import until


@pytest.mark.parametrize(
    ("host", "reached"), [("", ["127.0.0.1", "[::1]"]), ("127.0.0.1", ["127.0.0.1"])]
)
async def test_where_the_pages_are(host: str, reached: list[str]) -> None:
    port = free_port()
    settings = WorkerSettings(worker_host=host, worker_port=port)
    server = health_server(settings, Status(partition=0), lambda: 1, list)
    serving = asyncio.create_task(server.serve())
    try:
        await until("the server has started", lambda: server.started)
        found = []
        async with httpx.AsyncClient() as client:
            for address in ("127.0.0.1", "[::1]"):
                try:
                    answer = await client.get(f"http://{address}:{port}/healthz")
                except httpx.ConnectError:
                    continue
                found.append(address)
                assert answer.text == "ok\n"
        assert found == reached
    finally:
        server.end()
        await serving
