"""The machine's clock."""

import asyncio
import time

from microfin.process.ticks import tick


class SystemClock:
    """The clock of this machine and of asyncio's loop."""

    def monotonic(self) -> float:
        """Return seconds since some moment, never going back."""
        return time.monotonic()

    def now(self) -> int:
        """Return milliseconds since the Unix epoch."""
        return time.time_ns() // 1_000_000

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)

    async def tick(self, seconds: float) -> None:
        """Wait until the next tick that all timers of these seconds share."""
        await tick(seconds)
