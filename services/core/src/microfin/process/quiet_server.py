"""A main loop for uvicorn that looks only when there is something to see.

uvicorn looks ten times a second whether it is to end, and renews the date of its answers at every
tenth look. Those looks were most of what woke an idle process up. Here who wants an end says so,
and the first answer of a second makes the date.
"""

import asyncio
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

import uvicorn
from uvicorn.server import ServerState

_UVICORN_LOOKS = 10  # in a second; it makes the headers where the count is a multiple of this


class _DatedState(ServerState):
    """What uvicorn's connections share. The headers of each answer have the date of the answer."""

    def __init__(self, config: uvicorn.Config) -> None:
        self._config = config
        self._second = -1
        self._headers: list[tuple[bytes, bytes]] = []
        super().__init__()

    @property
    def default_headers(self) -> list[tuple[bytes, bytes]]:
        """The headers that each answer gets."""
        second = int(time.time())
        if second != self._second:
            date = formatdate(second, usegmt=True).encode()
            self._second = second
            self._headers = [(b"date", date), *self._config.encoded_headers]
        return self._headers

    @default_headers.setter
    def default_headers(self, _: list[tuple[bytes, bytes]]) -> None:
        """Ignore what uvicorn makes at a look: it may be old when it is needed."""


class QuietServer:
    """Comes before `uvicorn.Server` among the bases of a server."""

    def __init__(self, config: uvicorn.Config, **options: Any) -> None:
        super().__init__(config, **options)  # type: ignore[call-arg]
        self.server_state: ServerState = _DatedState(config)
        self._something = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def on_tick(self, counter: int) -> bool:
        """Return whether the time has come to stop."""
        ended: bool = await super().on_tick(counter)  # type: ignore[misc]
        return ended

    async def main_loop(self) -> None:
        """Look whenever there may be something to see, until the server is to end."""
        self._loop = asyncio.get_running_loop()
        counter = 0
        while not await self.on_tick(counter):
            counter += _UVICORN_LOOKS
            await self._something.wait()
            self._something.clear()

    @property
    def is_serving(self) -> bool:
        """Whether the main loop has begun; it looks once before it waits."""
        return self._loop is not None

    def look_soon(self) -> None:
        """Look at once, so that an end is noticed. A signal handler may call it."""
        self.call_in(0.0, self._something.set)

    def call_in(self, seconds: float, callback: Callable[[], None]) -> None:
        """Call `callback` in `seconds` if the server serves. A signal handler may call it."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._loop.call_later, seconds, callback)
