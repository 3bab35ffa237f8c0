"""Ends waits that take too long: one timer for all waits of one length.

Waits that are equally long end in the order in which they began. So they stand in one queue, and
the timer is set for the first that is still open; a timer for each would be set and cancelled for
nothing with almost every request.
"""

import asyncio
from collections import deque


class Patience:
    """Sets the result of futures that are not done `seconds` after their wait began."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._waits: deque[tuple[float, asyncio.Future[None]]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    async def wait(self, woken: asyncio.Future[None]) -> None:
        """Return when `woken` is done, or when the time is over and it has been set."""
        loop = asyncio.get_running_loop()
        waits = self._waits
        while waits and waits[0][1].done():
            waits.popleft()
        waits.append((loop.time() + self._seconds, woken))
        if self._timer is None:
            self._timer = loop.call_at(waits[0][0], self._end_what_is_over)
        await woken

    def _end_what_is_over(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        while self._waits and (self._waits[0][0] <= now or self._waits[0][1].done()):
            _, woken = self._waits.popleft()
            if not woken.done():
                woken.set_result(None)
        self._timer = None
        if self._waits:
            self._timer = loop.call_at(self._waits[0][0], self._end_what_is_over)
