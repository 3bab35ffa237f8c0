"""A way to PostgreSQL or its pooler that counts the round trips: how often the server has spoken.

What the server says until the client speaks again is one answer, in however many pieces it comes.
"""

import asyncio
from typing import Self
from urllib.parse import urlsplit, urlunsplit

_AT_ONCE = 65_536


class CountedWay:
    """Forwards connections to where a URL leads, and counts the answers on them."""

    def __init__(self, url: str) -> None:
        self._parts = urlsplit(url)
        self._links: set[asyncio.Task[None]] = set()
        self.round_trips = 0
        self.url = ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        login = self._parts.netloc.rpartition("@")[0]
        self.url = urlunsplit(self._parts._replace(netloc=f"{login}@127.0.0.1:{port}"))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for link in self._links:
            link.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = asyncio.current_task()
        assert link is not None
        self._links.add(link)
        host, port = self._parts.hostname or "127.0.0.1", self._parts.port or 5432
        from_server, to_server = await asyncio.open_connection(host, port)
        asked = False

        async def answer() -> None:
            nonlocal asked
            while data := await from_server.read(_AT_ONCE):
                self.round_trips += asked
                asked = False
                writer.write(data)

        answering = asyncio.create_task(answer())
        try:
            while data := await reader.read(_AT_ONCE):
                asked = True
                to_server.write(data)
        finally:
            answering.cancel()
            to_server.close()
            writer.close()
            self._links.discard(link)
