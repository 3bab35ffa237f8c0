"""For how long commands gather before a worker takes the next batch.

A batch costs much, a command in it little. The pause follows from what a commit takes at the time:
where the machine is busy commits are slow, and fewer, larger batches are what frees it.
"""

from typing import Final

COMMITS: Final = 4.0
"""Between the beginnings of two batches lie at least so many times what a commit takes."""

LONGEST_SECONDS: Final = 0.05
"""A stalled database must not make the batches after it late."""

_WEIGHT: Final = 0.2  # of the latest commit in the average


class Gathering:
    """One worker's pauses.

    `interval` are the seconds from the beginning of a batch that held several commands to the next
    one's, at the least; 0 switches gathering off. A command that came alone is no sign of load, and
    a full batch needs no time to fill up: after neither there is a pause.
    """

    def __init__(self, interval: float, limit: int) -> None:
        self._interval = interval
        self._limit = limit
        self._commit_seconds = 0.0
        self._until = 0.0

    def committed(self, seconds: float) -> None:
        """Note what a commit took."""
        self._commit_seconds += _WEIGHT * (seconds - self._commit_seconds)

    def begin(self, found: int, now: float) -> None:
        """Note that a batch begins (monotonic seconds) for which `found` commands were there."""
        self._until = now
        if 1 < found < self._limit and self._interval > 0:
            wanted = min(COMMITS * self._commit_seconds, LONGEST_SECONDS)
            self._until += max(self._interval, wanted)

    def left(self, now: float) -> float:
        """Return the seconds for which the next commands still gather, 0 or more."""
        return max(0.0, self._until - now)
