"""Waits until the platform is at rest: no undecided command in the log, and empty outboxes."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import httpx

_PAUSE_SECONDS: Final = 0.02
#: A worker updates its status with each fetch, so one reading may be older than the last command.
_READINGS: Final = 3


def is_at_rest(status: Mapping[str, Any]) -> bool:
    """Return whether a worker's `/status` says that nothing waits."""
    waiting: int = status["lag_records"] + status["outbox_size"]
    return waiting == 0 and status["state"] == "working"


async def wait_for_rest(
    workers: Callable[[], Sequence[str]], within_seconds: float
) -> float | None:
    """Return the time (`time.time()`) at which the workers came to rest, None if they did not.

    `workers` returns their base URLs, whose number may grow.
    """
    deadline = time.monotonic() + within_seconds
    at_rest_since, readings = 0.0, 0
    async with httpx.AsyncClient(timeout=2) as client:
        while time.monotonic() < deadline:
            now = time.time()
            if await _all_at_rest(client, workers()):
                at_rest_since = at_rest_since if readings else now
                readings += 1
                if readings == _READINGS:
                    return at_rest_since
            else:
                readings = 0
            await asyncio.sleep(_PAUSE_SECONDS)
    return None


async def _all_at_rest(client: httpx.AsyncClient, workers: Sequence[str]) -> bool:
    try:
        answers = await asyncio.gather(*(client.get(f"{url}/status") for url in workers))
    except httpx.HTTPError:
        return False
    return all(is_at_rest(answer.json()) for answer in answers)
