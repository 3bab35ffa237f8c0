"""A deadline that holds, whatever it is that is waited for."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def within(seconds: float, waited_for: Coroutine[Any, Any, T], who: str = "it") -> T:
    """Return what `waited_for` returns. Raises TimeoutError, which names `who`, after `seconds`.

    asyncio's own deadlines wait until what they have cancelled has ended, which a client library
    may take its time for, or swallow. Here it is cancelled and left to itself.
    """
    task = asyncio.ensure_future(waited_for)
    try:
        await asyncio.wait({task}, timeout=seconds)
    finally:
        if not task.done():
            task.cancel()
            task.add_done_callback(_forget)
    if not task.done():
        raise TimeoutError(f"{who} did not answer within {seconds} s")
    return task.result()


def _forget(task: asyncio.Future[Any]) -> None:
    """Take note of how it ended, which nobody else will."""
    if not task.cancelled():
        task.exception()
