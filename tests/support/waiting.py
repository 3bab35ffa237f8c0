"""Wait for something that other processes or threads do, and say what did not happen.

`until` and `until_true` are for tests that run in an event loop, `until_blocking` for the others.
"""

import asyncio
import contextlib
import inspect
import time
from collections.abc import Callable
from typing import Any

import httpx


async def until(
    what: str,
    probe: Callable[[], Any],
    seconds: float = 30,
    pause: float = 0.05,
    *,
    not_yet: tuple[type[Exception], ...] = (),
) -> Any:
    """Call or await `probe` until its answer is true, and return the answer.

    After `seconds` it raises AssertionError with `what`. An exception in `not_yet` is no answer.
    """
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(*not_yet):
            answer = probe()
            if inspect.isawaitable(answer):
                answer = await answer
            if answer:
                return answer
        if time.monotonic() > deadline:
            raise AssertionError(_late(what, seconds))
        await asyncio.sleep(pause)


async def until_true(probe: Callable[[], object], seconds: float = 60, pause: float = 0.05) -> None:
    """Call `probe` until its answer is true. The line that calls this says what it waits for."""
    await until("a condition of the test", probe, seconds, pause)


def until_blocking(
    what: str, probe: Callable[[], object], seconds: float = 30, pause: float = 0.05
) -> None:
    """Do the same as `until` in a test that has no event loop."""
    deadline = time.monotonic() + seconds
    while not probe():
        assert time.monotonic() < deadline, _late(what, seconds)
        time.sleep(pause)


async def until_ready(url: str, seconds: float = 60) -> None:
    """Wait until the process at `url` says that it is ready."""
    async with httpx.AsyncClient(base_url=url, timeout=5) as client:

        async def is_ready() -> bool:
            return (await client.get("/readyz")).status_code == 200

        await until(f"{url} is ready", is_ready, seconds, not_yet=(httpx.TransportError,))


def until_ready_blocking(url: str, seconds: float = 60) -> None:
    """Do the same as `until_ready` in a test that has no event loop."""

    def is_ready() -> bool:
        try:
            return httpx.get(f"{url}/readyz", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    until_blocking(f"{url} is ready", is_ready, seconds)


def _late(what: str, seconds: float) -> str:
    return f"{what}: not within {seconds:g} s"
