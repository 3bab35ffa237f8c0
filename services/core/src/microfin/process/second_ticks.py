"""A main loop for uvicorn that ticks once a second.

uvicorn looks ten times a second whether it is to end, and renews the date of its answers at every
tenth look. Those looks were most of what woke an idle process up.
"""

import asyncio
import contextlib
from typing import Any, Final

from microfin.process.ticks import until_tick

_SECONDS: Final = 1.0
_UVICORN_TICKS: Final = 10  # in a second; it does its work where the count is a multiple of this


class SecondTicks:
    """Comes before `uvicorn.Server` among the bases of a server."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._look = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def on_tick(self, counter: int) -> bool:
        """Return whether the time has come to stop; the server does its work here."""
        ended: bool = await super().on_tick(counter)  # type: ignore[misc]
        return ended

    async def main_loop(self) -> None:
        """Tick until the server is to end; uvicorn calls this."""
        self._loop = asyncio.get_running_loop()
        counter = 0
        while not await self.on_tick(counter):
            counter += _UVICORN_TICKS
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(until_tick(self._loop.time(), _SECONDS)):
                    await self._look.wait()
            self._look.clear()

    def tick_soon(self, seconds: float = 0.0) -> None:
        """Tick in `seconds`, so that an end is not noticed later. A signal handler may call it."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._loop.call_later, seconds, self._look.set)
