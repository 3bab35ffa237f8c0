"""Timers that tick together wake an idle process once."""

import asyncio
from typing import Any

import pytest

from microfin.process.ticks import tick, until_tick


@pytest.mark.parametrize(
    ("now", "seconds", "until"),
    [
        (10.0, 1.0, 1.0), (10.25, 1.0, 0.75), (10.25, 0.5, 0.25), (11.25, 2.0, 0.75),
        (10.75, 1.0, 0.25), (10.95, 1.0, 1.05), (10.9999, 0.5, 0.5001),
    ],
)  # fmt: skip
def test_a_tick_ends_at_a_multiple_and_not_just_after_the_one_before(
    now: float, seconds: float, until: float
) -> None:
    assert until_tick(now, seconds) == pytest.approx(until)


class Turns(asyncio.SelectorEventLoop):
    """Counts how often the loop waited."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = 0
        select = self._selector.select  # type: ignore[attr-defined]

        def count(timeout: float | None) -> Any:
            self.waits += timeout is None or timeout > 0
            return select(timeout)

        self._selector.select = count  # type: ignore[attr-defined]


def test_timers_of_different_beginnings_share_their_wake_ups() -> None:
    loop = Turns()

    async def tick_after(pause: float, seconds: float, ticks: int) -> set[int]:
        await asyncio.sleep(pause)
        woken = set()
        for _ in range(ticks):
            await tick(seconds)
            woken.add(loop.waits)
        return woken

    async def ticking() -> list[set[int]]:
        return await asyncio.gather(
            tick_after(0.0, 0.1, 8), tick_after(0.013, 0.1, 8), tick_after(0.031, 0.2, 4)
        )

    half, other, whole = loop.run_until_complete(ticking())
    loop.close()
    assert len(half & other) >= 4  # a machine that stalls may delay a beginning
    assert len(whole & (half | other)) >= 2
