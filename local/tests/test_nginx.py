"""nginx as the platform configures it, in front of small servers of our own."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from microfin_api.http.problems import CATALOGUE
from microfin_local import nginx
from microfin_local.ports import Ports
from microfin_local.supervised import SupervisedProcess
from microfin_local.wait import accepts_connections, wait_until


class Upstream:
    """Stands where an API process would: keeps what it was asked; on demand it hangs up."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.hangs_up = False
        self.answering = asyncio.Event()
        self.answering.set()
        self.server: asyncio.Server | None = None

    async def start(self) -> int:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port: int = self.server.sockets[0].getsockname()[1]
        return port

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.requests.append(head)
        await self.answering.wait()
        if not self.hangs_up:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
            await writer.drain()
        writer.close()
        await writer.wait_closed()


class Front:
    """nginx before two upstreams."""

    def __init__(self, client: httpx.AsyncClient, upstreams: list[Upstream]) -> None:
        self.client = client
        self.upstreams = upstreams

    @property
    def requests(self) -> list[str]:
        return [request for upstream in self.upstreams for request in upstream.requests]


@pytest.fixture
def one_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nginx, "_MOST_UNDER_WAY", 1)


@pytest_asyncio.fixture
async def front(real_components: None, tmp_path: Path) -> AsyncIterator[Front]:
    upstreams = [Upstream(), Upstream()]
    upstream_ports = [await upstream.start() for upstream in upstreams]
    port = Ports(tmp_path / "ports.json", random_ports=True).choose("nginx", 0)
    program = nginx.prepare(tmp_path / "nginx", port, upstream_ports, as_root=os.geteuid() == 0)
    process = SupervisedProcess(program, tmp_path / "nginx.log", print, lambda: None)
    await process.start()
    try:
        await wait_until(lambda: accepts_connections(port), [process], "nginx")
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            yield Front(client, upstreams)
    finally:
        await process.stop()
        for upstream in upstreams:
            assert upstream.server is not None
            upstream.server.close()
            await upstream.server.wait_closed()


async def test_it_passes_on_who_asked_and_lets_nobody_pretend(front: Front) -> None:
    headers = {"X-Forwarded-For": "203.0.113.7", "X-Forwarded-Proto": "https"}
    answer = await front.client.get("/api/me", headers=headers)
    assert answer.status_code == 200
    request = front.requests[0].lower()
    assert "x-forwarded-for: 127.0.0.1\r\n" in request
    assert "x-forwarded-proto: http\r\n" in request
    assert f"host: 127.0.0.1:{front.client.base_url.port}\r\n" in request


async def test_it_passes_no_offer_to_upgrade_on(front: Front) -> None:
    headers = {
        "Connection": "Upgrade, HTTP2-Settings",
        "Upgrade": "h2c",
        "HTTP2-Settings": "AAMAAABkAAQCAAAAAAIAAAAA",
    }
    answer = await front.client.post("/api/deposit", content=b"{}", headers=headers)
    assert answer.status_code == 200
    request = front.requests[0].lower()
    assert "\r\nconnection:" not in request
    assert "\r\nupgrade:" not in request
    assert "\r\nhttp2-settings:" not in request


def problem_of(answer: httpx.Response, status: int) -> str:
    """Return the code of a problem that nginx itself returned."""
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    problem = answer.json()
    assert problem["status"] == status
    assert problem["title"] == CATALOGUE[problem["code"]].title
    assert problem["detail"]
    return str(problem["code"])


async def test_a_large_body_stops_here(front: Front) -> None:
    answer = await front.client.post("/api/deposit", content=b" " * (64 * 1024 + 1))
    assert problem_of(answer, 413) == "body_too_large"
    assert front.requests == []


async def test_a_head_that_cannot_be_read_stops_here(front: Front) -> None:
    get = front.client.get
    assert problem_of(await get("/api/accounts/%00"), 400) == "malformed_request"
    assert problem_of(await get("/" + "a" * 40_000), 414) == "malformed_request"
    answer = await get("/api/me", headers={"Cookie": "sessionId=" + "a" * 40_000})
    assert problem_of(answer, 431) == "malformed_request"
    assert front.requests == []


@pytest.mark.parametrize("method", ["TRACE", "NONSENSE"])
async def test_an_unknown_method_stops_here(front: Front, method: str) -> None:
    answer = await front.client.request(method, "/api/me")
    assert problem_of(answer, 405) == "method_not_allowed"
    assert answer.headers["allow"] == "DELETE, GET, HEAD, POST"
    assert front.requests == []


@pytest.mark.parametrize("data", [b"nonsense\r\n\r\n", b"GET /api/me HTTP/9.9\r\nHost: x\r\n\r\n"])
async def test_what_is_no_http_is_refused(front: Front, data: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", front.client.base_url.port)
    writer.write(data)
    answer = (await reader.read()).decode()
    writer.close()
    assert answer.startswith("HTTP/1.1 400 ")
    assert "application/problem+json" in answer
    assert "malformed_request" in answer


async def test_its_problems_have_no_address_of_their_own(front: Front) -> None:
    assert (await front.client.get("/problem/400")).status_code == 404


async def test_a_process_that_does_not_listen_is_passed_over(front: Front) -> None:
    gone = front.upstreams[0].server
    assert gone is not None
    gone.close()
    await gone.wait_closed()
    for _ in range(6):
        assert (await front.client.post("/api/deposit", content=b"{}")).status_code == 200
    assert len(front.upstreams[1].requests) == 6


async def test_what_may_have_been_done_is_never_repeated(front: Front) -> None:
    for upstream in front.upstreams:
        upstream.hangs_up = True
    answer = await front.client.post("/api/deposit", content=b"{}")
    assert problem_of(answer, 503) == "unknown"
    assert answer.headers["retry-after"] == "1"
    assert len(front.requests) == 1
    assert problem_of(await front.client.get("/api/accountGeneration/"), 503) == "unknown"
    assert len(front.requests) == 2


async def test_a_question_is_asked_again_elsewhere(front: Front) -> None:
    for upstream in front.upstreams:
        upstream.hangs_up = True
    answer = await front.client.get("/api/accounts")
    assert problem_of(answer, 503) == "unavailable"
    assert answer.headers["retry-after"] == "1"
    assert len(front.requests) == 2


async def test_what_is_too_much_for_the_processes_is_refused_here(
    one_under_way: None,
    front: Front,
) -> None:
    for upstream in front.upstreams:
        upstream.answering.clear()
    waiting = [asyncio.create_task(front.client.get("/api/me")) for _ in range(2)]
    while len(front.requests) < 2:  # noqa: ASYNC110 - nobody sets an event for it
        await asyncio.sleep(0.01)
    refused = await front.client.post("/api/deposit", content=b"{}")
    assert problem_of(refused, 503) == "overloaded"
    assert refused.headers["retry-after"] == "1"
    assert len(front.requests) == 2
    for upstream in front.upstreams:
        upstream.answering.set()
    assert {(await answer).status_code for answer in waiting} == {200}
    assert (await front.client.post("/api/deposit", content=b"{}")).status_code == 200
