"""Clocks for code that is given its clock, as the worker's is."""

import asyncio


class ArtificialClock:
    """Shows the milliseconds that a test sets. `sleep` advances it, and returns at once.

    Both of its clocks stop while nobody advances it, as those of a frozen machine do.
    """

    def __init__(self) -> None:
        self.milliseconds = 50_000
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.milliseconds / 1000

    def now(self) -> int:
        return self.milliseconds

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.milliseconds += int(1000 * seconds)

    async def tick(self, seconds: float) -> None:
        await self.sleep(seconds)


class HandClock:
    """Advances only in `spend`, by whole milliseconds, so that no fraction is lost.

    `sleep` lets other tasks run, and takes no time of this clock.
    """

    def __init__(self) -> None:
        self.milliseconds = 5_000

    def monotonic(self) -> float:
        return self.milliseconds / 1000

    def now(self) -> int:
        return 1_700_000_000_000 + self.milliseconds

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0.001 if seconds else 0)

    async def tick(self, seconds: float) -> None:
        await self.sleep(seconds)

    async def spend(self, milliseconds: int) -> None:
        """Let a component need this time, while other tasks run."""
        self.milliseconds += milliseconds
        await asyncio.sleep(0)
