"""Where the time of a batch's commands goes: in phases that follow each other without a gap.

Every command waits for its whole batch, so it has the batch's times; only `queue` differs between
commands. When a batch must be read and decided again, its phases begin again: the time that was
lost counts as `queue`.
"""

from collections.abc import Sequence
from typing import Final

from microfin_worker import metrics
from microfin_worker.ports import Clock, Record

_QUEUE: Final = metrics.PHASE_SECONDS["queue"]
_APPLY: Final = metrics.PHASE_SECONDS["apply"]
_COMMIT: Final = metrics.PHASE_SECONDS["commit"]
_NOTIFY: Final = metrics.PHASE_SECONDS["notify"]


class BatchPhases:
    """The moments of one batch, which begins now.

    Only `queue` compares two clocks, this machine's and the broker's, both in whole milliseconds.
    """

    __slots__ = ("_begun", "_begun_at", "_clock", "_committed", "_decided")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._begun_at = clock.now()
        self._begun = self._decided = self._committed = clock.monotonic()

    def decided(self) -> None:
        """Note that the batch is decided."""
        self._decided = self._clock.monotonic()

    def committed(self, records: Sequence[Record]) -> None:
        """Note that the batch's `records` are committed. A batch that fails is not observed."""
        self._committed = self._clock.monotonic()
        begun_at = self._begun_at
        for record in records:
            _QUEUE.observe(max(begun_at - record.time, 0) / 1000)
        _APPLY.observe(self._decided - self._begun, len(records))
        _COMMIT.observe(self._committed - self._decided, len(records))

    def published(self, answers: int) -> None:
        """Note that the batch's answers are published; there may be fewer or more than commands."""
        _NOTIFY.observe(self._clock.monotonic() - self._committed, answers)
