"""A deadline that holds also against what cannot be cancelled."""

import asyncio
import contextlib

import pytest

from microfin.process.deadline import within


async def _answer() -> int:
    await asyncio.sleep(0)
    return 7


async def _hang_and_swallow(released: asyncio.Event) -> None:
    """As Kafka's client does when it is stopped while it connects."""
    while not released.is_set():
        with contextlib.suppress(asyncio.CancelledError):
            await released.wait()


async def _fail() -> None:
    raise LookupError


async def test_what_is_in_time_is_returned_or_raised() -> None:
    assert await within(5, _answer()) == 7
    with pytest.raises(LookupError):
        await within(5, _fail())


async def test_what_cannot_be_cancelled_is_not_waited_for() -> None:
    released = asyncio.Event()
    async with asyncio.timeout(5):
        with pytest.raises(TimeoutError):
            await within(0.01, _hang_and_swallow(released))
    released.set()


async def test_who_is_cancelled_waits_no_longer() -> None:
    released = asyncio.Event()
    waiting = asyncio.create_task(within(60, _hang_and_swallow(released)))
    await asyncio.sleep(0.01)
    waiting.cancel()
    async with asyncio.timeout(5):
        with pytest.raises(asyncio.CancelledError):
            await waiting
    released.set()
