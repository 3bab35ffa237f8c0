"""Prometheus as `make observe` runs it, with processes that play workers."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from prometheus_client import CollectorRegistry, Gauge, start_http_server

from microfin_local.endpoints import Endpoints, write_endpoints
from microfin_local.errors import PlatformError
from microfin_local.programs import find_program
from microfin_local.prometheus import observe, prepare, targets, write_targets
from support.waiting import until


def play_worker(*, ready: bool) -> str:
    """Serve a worker's metrics for as long as the tests run; return its URL."""
    registry = CollectorRegistry()
    Gauge("microfin_worker_ready", "1 while it works.", registry=registry).set(ready)
    server, _ = start_http_server(0, "127.0.0.1", registry)
    return f"http://127.0.0.1:{server.server_port}"


@pytest_asyncio.fixture
async def state(tmp_path: Path) -> Path:
    (tmp_path / "logs").mkdir()
    write_endpoints(tmp_path, Endpoints(workers=[play_worker(ready=True)]))
    return tmp_path


@pytest_asyncio.fixture
async def prometheus(real_components: None, state: Path) -> AsyncIterator[httpx.AsyncClient]:
    """Run `observe` and give a client of its Prometheus."""
    command = [sys.executable, "-m", "microfin_local", "--state", str(state), "observe"]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        line = (await process.stdout.readline()).decode()
        address = line.partition("http://")[2].split()[0]
        async with httpx.AsyncClient(base_url=f"http://{address}") as client:
            yield client
            process.send_signal(signal.SIGINT)
            assert await asyncio.wait_for(process.wait(), 15) == 0
            with pytest.raises(httpx.ConnectError):
                await client.get("/-/healthy")
    finally:
        if process.returncode is None:
            process.kill()


async def until_answer(probe: Callable[[Any], bool], client: httpx.AsyncClient, path: str) -> None:
    async def ask() -> bool:
        answer = await client.get(path)
        return answer.status_code != 503 and probe(answer.json()["data"])  # it is starting

    await until(path, ask, pause=0.2)


def values_by_pod(data: Any) -> dict[str, str]:
    return {it["metric"]["pod"]: it["value"][1] for it in data["result"]}


async def test_it_asks_every_worker_also_one_that_came_later(
    prometheus: httpx.AsyncClient, state: Path
) -> None:
    path = "/api/v1/query?query=microfin_worker_ready"
    await until_answer(lambda data: values_by_pod(data) == {"worker-0": "1"}, prometheus, path)
    first = Endpoints(workers=[play_worker(ready=True), play_worker(ready=False)])
    write_endpoints(state, first)
    both = {"worker-0": "1", "worker-1": "0"}
    await until_answer(lambda data: values_by_pod(data) == both, prometheus, path)
    rules = (await prometheus.get("/api/v1/rules")).json()["data"]["groups"]
    assert {"MicrofinSettlingStopped", "MicrofinPoolSaturated"} <= {
        rule["name"] for group in rules for rule in group["rules"]
    }
    pending = '/api/v1/query?query=ALERTS{alertname="MicrofinSettlingStopped"}'
    await until_answer(lambda data: values_by_pod(data) == {"worker-1": "1"}, prometheus, pending)


@pytest.mark.usefixtures("real_components")
def test_promtool_accepts_the_settings(tmp_path: Path) -> None:
    folder = tmp_path / "prometheus"
    prepare(folder, 9090)
    write_targets(folder, Endpoints(apis=["http://127.0.0.1:8080"]))
    done = subprocess.run(
        [find_program("promtool"), "check", "config", str(folder / "prometheus.yml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "2 rule files found" in done.stdout


def test_targets_are_labelled_as_the_charts_label_pods() -> None:
    found = targets(Endpoints(apis=["http://127.0.0.1:8080"], workers=["http://127.0.0.1:8100"]))
    assert found[0]["targets"] == ["127.0.0.1:8080"]
    labels = [it["labels"] for it in found]
    assert labels == [
        {"namespace": "one-machine", "pod": "api-0", "microfin_part": "api"},
        {"namespace": "one-machine", "pod": "worker-0", "microfin_part": "worker"},
    ]


async def test_without_a_platform_it_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match="make start"):
        await observe(tmp_path, print)
