"""Work that nobody waits for, such as telling Redis what has happened."""

import asyncio
from collections.abc import Coroutine
from typing import Any


class Unawaited:
    """Begins such work, and keeps it until it is done: the event loop alone would forget it."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Begin `work`, which raises nothing, at the next turn of the event loop."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def finish(self, seconds: float) -> None:
        """Wait until all of it is done, or the time is over."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
