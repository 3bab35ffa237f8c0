"""HTTP/1.1 over persistent connections, as cheaply as Python can: the clients share two cores with
all components.

Knows what our API and nginx send: answers with Content-Length, never chunked.
"""

import asyncio
import contextlib
from typing import NamedTuple

ANSWER_SECONDS = 14.0
"""The API answers within ten seconds, or says that it does not know."""


class NoAnswer(Exception):
    """The connection broke off, or nothing came in time: nobody knows what became of it."""


class Response(NamedTuple):
    """An answer."""

    status: int
    location: str
    body: bytes


class Connections:
    """Connections to one port: one for each request that is under way."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(
        self,
        method: str,
        path: str,
        session: str = "",
        body: bytes = b"",
        headers: str = "",
    ) -> Response:
        """Send a request and return its answer. Raises `NoAnswer`."""
        bearer = f"Authorization: Bearer {session}\r\n" if session else ""
        content = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{bearer}"
            f"{content if method == 'POST' else ''}{headers}\r\n"
        )
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await self._exchange(head.encode() + body)
        except (OSError, EOFError, TimeoutError, ValueError, asyncio.LimitOverrunError) as error:
            raise NoAnswer(repr(error)) from error

    async def _exchange(self, request: bytes) -> Response:
        reader, writer = self._idle.pop() if self._idle else await self._connect()
        try:
            writer.write(request)
            response, persistent = await _read(reader)
        except BaseException:
            writer.transport.abort()
            raise
        if persistent:
            self._idle.append((reader, writer))
        else:
            writer.close()
        return response

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self._port)

    def close(self) -> None:
        """Close all idle connections."""
        for _, writer in self._idle:
            with contextlib.suppress(OSError):
                writer.close()
        self._idle.clear()


async def _read(reader: asyncio.StreamReader) -> tuple[Response, bool]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    length, location, persistent = 0, "", True
    for line in head.split("\r\n")[1:]:
        name, _, value = line.partition(":")
        match name.lower():
            case "content-length":
                length = int(value)
            case "location":
                location = value.strip()
            case "connection":
                persistent = "close" not in value.lower()
    body = await reader.readexactly(length) if length else b""
    return Response(int(head[9:12]), location, body), persistent
