"""A deadline that holds even where a library delays or swallows its own cancellation."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def within(seconds: float, waited_for: Coroutine[Any, Any, T], who: str = "it") -> T:
    """Return what `waited_for` returns. Raises TimeoutError, which names `who`, after `seconds`.

    asyncio's own deadlines wait until the cancelled task has ended. A client library may delay that
    end, or swallow the cancellation. This function cancels the task and does not wait for its end.
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
    """Retrieve the result, because nobody else does: asyncio would complain about that."""
    if not task.cancelled():
        task.exception()
