"""What `make status` says of processes that are not well."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio

from microfin_local.complaints import complaints
from microfin_local.endpoints import Endpoints


class Speaker:
    """Answers every request with the same."""

    def __init__(self, status: dict[str, Any]) -> None:
        self._body = json.dumps(status).encode()

    async def __aenter__(self) -> str:
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + self._body)
        writer.close()


SLOW = "answers are slower: the cluster is down"


@pytest_asyncio.fixture
async def endpoints() -> AsyncIterator[Endpoints]:
    async with (
        Speaker({"status": "ready", "degraded": [SLOW]}) as slow,
        Speaker({"status": "not ready", "missing": ["no Kafka"], "degraded": [SLOW]}) as unready,
        Speaker({"state": "working", "reason": "", "degraded": []}) as well,
        Speaker({"state": "stopped", "reason": "the log is lost"}) as stopped,
    ):
        yield Endpoints(apis=[slow, unready], workers=[well, stopped, "http://127.0.0.1:1"])


async def test_who_is_not_well_is_said_with_the_reason(endpoints: Endpoints) -> None:
    assert await complaints(endpoints) == [
        f"api-0, api-1: {SLOW}",
        "api-1: no Kafka",
        "worker-1: stopped: the log is lost",
        "worker-2: it does not answer",
    ]


async def test_nothing_is_said_where_all_are_well(endpoints: Endpoints) -> None:
    assert await complaints(Endpoints(workers=endpoints.workers[:1])) == []
