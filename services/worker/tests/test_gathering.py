"""When a worker lets commands gather, and when it does not wait."""

import asyncio
from typing import Any, cast

import pytest

from microfin_worker.edges import Edges
from microfin_worker.worker import Limits, Worker


class RecordedClock:
    """A clock that goes on when somebody sleeps, and says how long that was."""

    def __init__(self) -> None:
        self.slept: list[float] = []
        self.time = 100.0

    def monotonic(self) -> float:
        return self.time

    def now(self) -> int:
        return 0

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds


@pytest.mark.parametrize(
    ("found", "took", "waits"),
    [(1, 0.0, 0.0), (2, 0.0, 0.5), (2, 0.25, 0.25), (2, 0.5, 0.0), (500, 2.0, 0.0)],
)
def test_only_what_came_together_is_a_sign_of_load(found: int, took: float, waits: float) -> None:
    clock = RecordedClock()
    nothing = cast("Any", None)
    edges = Edges(log=nothing, store=nothing, replies=nothing, cache=nothing, clock=clock)
    worker = Worker(0, 1, edges, Limits(interval=0.5))
    worker._plan_next(found)
    clock.time += took
    asyncio.run(worker._let_gather())
    assert sum(clock.slept) == waits
