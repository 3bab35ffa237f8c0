"""Two ways to do one thing, measured alternately in one process: ratios, not speeds, are compared.

The machine may be busy with something else. Both ways suffer from it alike, as long as their runs
alternate; the spread of the runs says how much the machine disturbed them.
"""

from collections.abc import Awaitable, Callable
from statistics import median
from typing import Any, Final

RUNS: Final = 3

Measure = Callable[[], Awaitable[float]]
"""Does the thing many times and returns the microseconds that it took once."""


async def compare(hand_made: Measure, library: Measure, *, runs: int = RUNS) -> dict[str, Any]:
    """Return the median microseconds of both ways, the library's ratio to ours, and all runs."""
    await hand_made(), await library()  # whatever happens only the first time
    ours, theirs = [], []
    for _ in range(runs):
        ours.append(await hand_made())
        theirs.append(await library())
    ratios = [their / our for our, their in zip(ours, theirs, strict=True)]
    return {
        "hand_made_microseconds": round(median(ours), 2),
        "library_microseconds": round(median(theirs), 2),
        "saved_microseconds": round(median(theirs) - median(ours), 2),
        "ratio_median": round(median(ratios), 2),
        "ratio_least": round(min(ratios), 2),
        "ratio_most": round(max(ratios), 2),
        "runs": [
            {"hand_made": round(our, 2), "library": round(their, 2)}
            for our, their in zip(ours, theirs, strict=True)
        ],
    }
