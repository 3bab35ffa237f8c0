"""Virtual time, and processes that die and pause."""

import asyncio
from random import Random

import pytest

from simulation.virtual_loop import STARTS_AT, Livelock, Process, VirtualLoop, current_process


def make_loop(seed: int = 0) -> VirtualLoop:
    return VirtualLoop(Random(seed), most_steps=10_000, ends_at=STARTS_AT + 1_000)


def test_the_clock_jumps_to_the_next_timer() -> None:
    loop = make_loop()

    async def sleep() -> float:
        await asyncio.sleep(500)
        return loop.time()

    assert loop.run(sleep()) == STARTS_AT + 500
    loop.take_apart()


def test_the_dead_do_not_even_clean_up() -> None:
    loop = make_loop()
    done = []

    async def work() -> None:
        try:
            await asyncio.sleep(10)
        finally:
            done.append("cleaned up")

    async def main() -> None:
        process = Process(loop, "worker")
        process.start(work())
        await asyncio.sleep(1)
        process.kill()
        await asyncio.sleep(20)

    loop.run(main())
    assert done == []
    loop.take_apart()


def test_a_paused_process_finds_its_timers_due_when_it_wakes() -> None:
    loop = make_loop()
    woke: list[tuple[str, float]] = []

    async def work() -> None:
        await asyncio.sleep(1)
        woke.append((current_process().name, loop.time() - STARTS_AT))

    async def main() -> None:
        process = Process(loop, "worker")
        process.start(work())
        await asyncio.sleep(0.5)
        process.pause()
        await asyncio.sleep(5)
        process.resume()
        await asyncio.sleep(1)

    loop.run(main())
    assert woke == [("worker", 5.5)]
    loop.take_apart()


def orders(seed: int) -> list[str]:
    loop = make_loop(seed)
    order: list[str] = []

    async def work() -> None:
        for _ in range(4):
            order.append(current_process().name)
            await asyncio.sleep(0)

    async def main() -> None:
        for name in ("a", "b"):
            Process(loop, name).start(work())
        await asyncio.sleep(1)

    loop.run(main())
    loop.take_apart()
    return order


def test_the_seed_interleaves_processes() -> None:
    found = {tuple(orders(seed)) for seed in range(20)}
    assert len(found) > 5
    assert orders(7) == orders(7)


def test_what_never_ends_is_said_to() -> None:
    loop = make_loop()

    async def spin() -> None:
        for _ in range(1_000_000):
            await asyncio.sleep(0)

    with pytest.raises(Livelock):
        loop.run(spin())
    loop.take_apart()
