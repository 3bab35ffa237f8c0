"""The worker's pauses: they grow before retries, and end with the stop."""

import asyncio

from microfin.process.clock import SystemClock
from microfin_worker.pauses import Pauses
from support.clocks import ArtificialClock


async def test_each_retry_waits_twice_as_long_until_a_commit() -> None:
    clock = ArtificialClock()
    pauses = Pauses(clock)
    for _ in range(7):
        await pauses.before_retry()
    pauses.committed()
    await pauses.before_retry()
    assert clock.slept == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0, 0.1]


async def test_a_stop_ends_a_pause() -> None:
    pauses = Pauses(SystemClock())
    resting = asyncio.create_task(pauses.rest(60))
    await asyncio.sleep(0)
    assert not pauses.stopping
    pauses.stop()
    await asyncio.wait_for(resting, 5)
    assert pauses.stopping
