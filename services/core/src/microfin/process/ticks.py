"""Timers that tick together, so that an idle process wakes up once for all of them.

A wake-up costs much more than what a timer does. Timers whose seconds are multiples of one another
end at the same moments of the loop's clock.
"""

import asyncio
from typing import Final

_TOO_NEAR: Final = 0.1  # of the seconds between two ticks: a timer may end a little early


def until_tick(now: float, seconds: float) -> float:
    """Return the seconds from `now` to the next multiple of `seconds` that is not very near."""
    left = seconds - now % seconds
    return left if left > _TOO_NEAR * seconds else left + seconds


async def tick(seconds: float) -> None:
    """Wait until the loop's clock shows a multiple of `seconds`; at most a tenth longer."""
    await asyncio.sleep(until_tick(asyncio.get_running_loop().time(), seconds))
