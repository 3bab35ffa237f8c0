"""The worker's pauses. A stop ends each of them."""

import asyncio
from collections.abc import Awaitable
from typing import Final

from microfin_worker.ports import Clock

FIRST_PAUSE: Final = 0.1
"""Seconds before the first retry."""

_LONGEST: Final = 1.0  # seconds


class Pauses:
    """Pauses of one worker, until `stop`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._stop = asyncio.Event()
        self._before_retry = FIRST_PAUSE

    @property
    def stopping(self) -> bool:
        """Whether the worker was asked to stop."""
        return self._stop.is_set()

    def stop(self) -> None:
        """End the pause under way, and let no other begin."""
        self._stop.set()

    async def unless_stopped(self, awaited: Awaitable[object]) -> None:
        """Wait for `awaited`, which is cancelled at the stop."""
        waiting = asyncio.ensure_future(awaited)
        stopping = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait((waiting, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if waiting.done():
            waiting.result()
        else:
            waiting.cancel()

    async def rest(self, seconds: float) -> None:
        """Wait, but not beyond the stop."""
        sleeping = asyncio.ensure_future(self._clock.sleep(seconds))
        stopping = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait((sleeping, stopping), return_when=asyncio.FIRST_COMPLETED)
        sleeping.cancel()
        stopping.cancel()

    async def before_retry(self) -> None:
        """Wait before a retry: twice as long each time, until a commit succeeds."""
        await self.rest(self._before_retry)
        self._before_retry = min(_LONGEST, self._before_retry * 2)

    def committed(self) -> None:
        """Note a commit: the next retry comes soon again."""
        self._before_retry = FIRST_PAUSE
