"""The worker's own pages: where they are, and how new what they show is."""

import asyncio

import httpx
import pytest

from microfin.process.settings import WorkerSettings
from microfin_worker import metrics
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
    server = health_server(settings, Status(partition=0), lambda: None, lambda: 1, list)
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


async def test_each_page_shows_what_is_true_now() -> None:
    """Nothing renews the status while nobody looks."""
    port, status = free_port(), Status(partition=0)

    def measure() -> None:
        status.epoch += 1
        status.state = "working" if status.epoch == 1 else "disconnected"
        metrics.show(status)

    settings = WorkerSettings(worker_host="127.0.0.1", worker_port=port)
    server = health_server(settings, status, measure, lambda: 1, list)
    serving = asyncio.create_task(server.serve())
    try:
        await until("the server has started", lambda: server.started)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            assert (await client.get("/readyz")).status_code == 200
            assert (await client.get("/readyz")).status_code == 503
            assert (await client.get("/status")).json()["epoch"] == 3
            assert "microfin_worker_ready 0.0" in (await client.get("/metrics")).text
            assert status.epoch == 4
    finally:
        server.end()
        await serving
