"""The pauses between batches, in which commands collect in the log.

A batch costs much, a command in it little. The pause depends on how long commits currently take:
commits are slow while the machine is busy, and then fewer and larger batches relieve it.
"""

from typing import Final

from microfin_worker.ports import Clock

COMMITS: Final = 4.0
"""The pause lasts until this many average commits after the start of the batch."""

LONGEST_SECONDS: Final = 0.05
"""The longest time that slow commits ask for: a stalled database must not delay later batches."""

_WEIGHT: Final = 0.2  # of the latest commit in the average


class Pacing:
    """One worker's pauses between batches.

    `interval` is the least number of seconds from the start of a batch that held several commands
    to the start of the next one; 0 switches pacing off. A command that came alone is no sign of
    load, and a full batch (`limit`) needs no time to fill up: no pause follows either of them.
    """

    def __init__(self, interval: float, limit: int) -> None:
        self._interval = interval
        self._limit = limit
        self._commit_seconds = 0.0
        self._until = 0.0

    def committed(self, seconds: float) -> None:
        """Note how long a commit took."""
        self._commit_seconds += _WEIGHT * (seconds - self._commit_seconds)

    def begin(self, found: int, now: float) -> None:
        """Note that a batch begins (monotonic seconds), and that `found` commands were fetched."""
        self._until = now
        if 1 < found < self._limit and self._interval > 0:
            wanted = min(COMMITS * self._commit_seconds, LONGEST_SECONDS)
            self._until += max(self._interval, wanted)

    def left(self, now: float) -> float:
        """Return the seconds until the next batch may be read, 0 or more."""
        return max(0.0, self._until - now)

    async def pause(self, clock: Clock) -> None:
        """Wait until the next batch may be read."""
        left = self.left(clock.monotonic())
        if left > 0:
            await clock.sleep(left)
