"""Waits end when they are over, in their order, whatever becomes of the others."""

import asyncio

import pytest

from microfin_api.commands.patience import Patience


def future() -> asyncio.Future[None]:
    return asyncio.get_running_loop().create_future()


async def wait_each(patience: Patience, woken: list[asyncio.Future[None]]) -> list[int]:
    """Wait for all; return in which order the waits ended."""
    ended: list[int] = []

    async def one(number: int) -> None:
        await patience.wait(woken[number])
        ended.append(number)

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        for number in range(len(woken)):
            group.create_task(one(number))
    return ended


async def test_a_wait_that_nobody_ends_is_over_in_the_end() -> None:
    assert await wait_each(Patience(0.01), [future() for _ in range(5)]) == [0, 1, 2, 3, 4]


async def test_a_wait_ends_as_soon_as_somebody_ends_it() -> None:
    woken = [future() for _ in range(3)]
    asyncio.get_running_loop().call_soon(woken[1].set_result, None)
    patience = Patience(0.05)
    assert await wait_each(patience, woken) == [1, 0, 2]


async def test_waits_that_begin_later_end_too() -> None:
    patience = Patience(0.01)
    for _ in range(3):
        assert await wait_each(patience, [future(), future()]) == [0, 1]


async def test_a_wait_that_is_cancelled_holds_nobody_up() -> None:
    patience = Patience(0.05)
    cancelled = asyncio.create_task(patience.wait(future()))
    others = asyncio.create_task(wait_each(patience, [future(), future()]))
    await asyncio.sleep(0)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    assert await others == [0, 1]


async def test_what_was_ended_by_others_is_not_remembered() -> None:
    patience = Patience(3_600)
    for _ in range(1_000):
        woken = future()
        woken.set_result(None)
        await patience.wait(woken)
    assert len(patience._waits) == 1
    assert patience._timer is not None
    patience._timer.cancel()
