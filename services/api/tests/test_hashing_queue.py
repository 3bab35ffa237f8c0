"""Whose turn it is at computing a hash."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from microfin_api.http.problems import Problem
from microfin_api.people.hashing_queue import HashingQueue, Lane
from support.waiting import until


class Crowd:
    """Work that notes its beginning and lasts until it is let go."""

    def __init__(self, at_once: int, seconds: float = 0.1) -> None:
        self.queue = HashingQueue(at_once, seconds)
        self.begun: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []
        self._permits = asyncio.Semaphore(0)

    async def comes(self, lane: Lane, name: str) -> asyncio.Task[None]:
        async def work() -> None:
            self.begun.append(name)
            await self._permits.acquire()

        task = asyncio.create_task(self.queue.run(lane, work))
        self.tasks.append(task)
        await asyncio.sleep(0)
        return task

    async def until_begun(self, count: int) -> None:
        await until(f"{count} begin", lambda: len(self.begun) >= count, pause=0.001)

    def let_go(self, count: int = 1) -> None:
        for _ in range(count):
            self._permits.release()


@pytest_asyncio.fixture
async def crowds() -> AsyncIterator[list[Crowd]]:
    made: list[Crowd] = []
    yield made
    for crowd in made:
        crowd.let_go(1000)
        await asyncio.gather(*crowd.tasks, return_exceptions=True)


async def test_sign_ups_leave_a_turn_to_signing_in(crowds: list[Crowd]) -> None:
    crowds.append(crowd := Crowd(2))
    for number in range(5):
        await crowd.comes("sign_up", f"up {number}")
    await crowd.comes("sign_in", "in")
    await crowd.until_begun(2)
    assert sorted(crowd.begun) == ["in", "up 0"]


async def test_both_lanes_take_turns(crowds: list[Crowd]) -> None:
    crowds.append(crowd := Crowd(1))
    for number in range(4):
        await crowd.comes("sign_up", f"up {number}")
    for number in range(4):
        await crowd.comes("sign_in", f"in {number}")
    crowd.let_go(8)
    await asyncio.gather(*crowd.tasks)
    assert crowd.begun == [f"{lane} {number}" for number in range(4) for lane in ("up", "in")]


async def test_a_full_lane_refuses_and_the_other_does_not(crowds: list[Crowd]) -> None:
    crowds.append(crowd := Crowd(1))
    for number in range(6):
        await crowd.comes("sign_up", f"up {number}")
    with pytest.raises(Problem, match="overloaded"):
        crowd.queue.require_room("sign_up")
    with pytest.raises(Problem, match="overloaded"):
        await (await crowd.comes("sign_up", "late"))
    crowd.queue.require_room("sign_in")


async def test_who_goes_away_leaves_no_gap(crowds: list[Crowd]) -> None:
    crowds.append(crowd := Crowd(1))
    await crowd.comes("sign_in", "first")
    gone = await crowd.comes("sign_in", "gone")
    await crowd.comes("sign_in", "last")
    gone.cancel()
    crowd.let_go(2)
    await asyncio.gather(*crowd.tasks, return_exceptions=True)
    assert crowd.begun == ["first", "last"]
    assert gone.cancelled()


async def test_hashes_that_cost_little_may_wait_in_greater_number(crowds: list[Crowd]) -> None:
    crowds.append(crowd := Crowd(1, seconds=0.001))
    for number in range(500):
        await crowd.comes("sign_in", f"in {number}")
    crowd.queue.require_room("sign_in")
    await crowd.comes("sign_in", "last")
    with pytest.raises(Problem, match="overloaded"):
        crowd.queue.require_room("sign_in")


async def test_work_keeps_its_turn_when_the_one_who_asked_goes_away(crowds: list[Crowd]) -> None:
    crowds.append(crowd := Crowd(1))
    gone = await crowd.comes("sign_in", "first")
    await crowd.comes("sign_in", "second")
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    assert crowd.begun == ["first"]
    crowd.let_go(2)
    await asyncio.gather(*crowd.tasks, return_exceptions=True)
    assert crowd.begun == ["first", "second"]
