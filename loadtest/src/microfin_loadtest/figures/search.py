"""The search for the highest rate that is carried: which rate to try next, from what was tried."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Final

from microfin_loadtest.errors import LoadImpossible

_STEP: Final = 1.1
CONFIRMATIONS: Final = 3
"""Runs that must carry the highest rate, the one that found it included."""


@dataclass(frozen=True)
class Try:
    """A rate that was offered, and whether it was carried."""

    rate: int
    is_carried: bool


def rate_at(first: int, step: int) -> int:
    """Return the rate some steps above the first one, or below it."""
    return round(first * _STEP**step)


def next_rate(tries: Sequence[Try], first: int) -> int | None:
    """Return the rate to try next; None if the search is over.

    It goes up from `first` by steps of 10 % until a rate is not carried, or down until one is. The
    highest rate is tried until it was carried three times; if it fails then, the next lower one is.
    Raises LoadImpossible if no rate is carried.
    """
    failed = {one.rate for one in tries if not one.is_carried}
    carried = [one.rate for one in tries if one.is_carried]
    if not failed:
        return rate_at(first, next(step for step in count() if rate_at(first, step) not in carried))
    top = _highest_below(min(failed), first)
    if top < 1:
        raise LoadImpossible("Not even one iteration a second was carried; see the log.")
    return None if carried.count(top) >= CONFIRMATIONS else top


def highest_rate(tries: Sequence[Try], first: int) -> int:
    """Return the highest rate of a search that is over."""
    return _highest_below(min(one.rate for one in tries if not one.is_carried), first)


def _highest_below(rate: int, first: int) -> int:
    """Return the next step's rate below this one."""
    step = 0
    while rate_at(first, step) < rate:
        step += 1
    while (lower := rate_at(first, step)) >= rate:
        if lower == 0:
            return 0
        step -= 1
    return lower
