"""uvicorn's HTTP protocol, with an answer's head and body in one write.

uvicorn hands them to the socket one after the other. Each write is a call into the kernel, and
wakes whoever reads.
"""

import asyncio
from typing import Any, Final, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_MOST_GATHERED: Final = 64 * 1024  # bytes; then the transport must say whether it takes more


class _GatheringTransport:
    """A transport that writes at the end of the event loop's turn what the turn has given it."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._gathered: list[bytes] = []
        self._size = 0

    def write(self, data: bytes) -> None:
        """Write soon."""
        if not self._gathered:
            self._loop.call_soon(self._write)
        self._gathered.append(data)
        self._size += len(data)
        if self._size > _MOST_GATHERED:
            self._write()

    def close(self) -> None:
        """Write what is left, and close."""
        self._write()
        self._transport.close()

    def _write(self) -> None:
        gathered, self._gathered, self._size = self._gathered, [], 0
        if gathered:
            self._transport.write(b"".join(gathered))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class GatheringProtocol(HttpToolsProtocol):
    """Serves HTTP/1.1 on one connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Be told by asyncio that the connection stands."""
        gathering = _GatheringTransport(cast("asyncio.Transport", transport))
        super().connection_made(cast("asyncio.Transport", gathering))
