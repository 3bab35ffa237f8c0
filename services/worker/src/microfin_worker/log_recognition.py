"""Recognising the log: is it the one that the partition's row was written from?

When a topic is deleted and created again under its name, Kafka's client follows without an error. A
worker would continue at its offset in the new log, and never decide the records before it.
"""

from typing import Final, NamedTuple

import structlog

from microfin_worker.fingerprint import fingerprint
from microfin_worker.ports import Clock, Log

logger = structlog.get_logger(__name__)

_YOUNG: Final = 100_000  # offsets that a new log may reach between two checks
_REPLACEMENT_SECONDS: Final = 0.1  # to delete a topic, create it and write to it takes longer
_LONGEST_SIGHT: Final = 6.0  # seconds; an idle worker checks every five
_GRACE: Final = 10.0  # seconds for which a log may seem too short after its leader changed
_PAUSE: Final = 0.5


class LogLost(Exception):
    """The log is not the one that this partition's row was written from."""


async def recognise_log(log: Log, clock: Clock, next_offset: int, expected: bytes | None) -> None:
    """Raise `LogLost` unless `log` is the one whose records were decided up to `next_offset`.

    `expected` is the fingerprint of the record before `next_offset`. If the log was trimmed exactly
    up to `next_offset`, there is no such record to recognise.
    """
    start, end = await _bounds(log, clock, next_offset)
    if not start <= next_offset <= end:
        raise LogLost(
            f"The log keeps offsets {start} to {end}, and {next_offset} is next to be decided: "
            "records were lost or the topic was replaced. See docs/runbooks/log-lost.md."
        )
    if expected is None or next_offset == start:
        return
    record = await log.record_at(next_offset - 1)
    if record is None or fingerprint(record) != expected:
        raise LogLost(
            f"The record at offset {next_offset - 1} is not the one that was decided last: "
            "the topic was replaced. See docs/runbooks/log-lost.md."
        )


async def recognise_again(log: Log, clock: Clock, next_offset: int, expected: bytes | None) -> None:
    """Do what `recognise_log` does; it takes one round trip if the log is the right one."""
    if expected is not None:
        record = await log.reread(next_offset - 1)
        if record is not None and fingerprint(record) == expected:
            return
    await recognise_log(log, clock, next_offset, expected)


class Moment(NamedTuple):
    """A moment by both clocks: monotonic seconds, and milliseconds since the Unix epoch."""

    monotonic: float
    wall: int


class LastSight:
    """The moment at which the log was last known to be the right one.

    That is when the log was asked, not when the answer was read: a process may be frozen between.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen = self.now()

    def now(self) -> Moment:
        """Return the current moment, in which the log is asked."""
        return Moment(self._clock.monotonic(), self._clock.now())

    def renew(self, asked: Moment) -> None:
        """Note that the log was the right one at the moment `asked`."""
        self._seen = asked

    def may_be_replaced(self, next_offset: int, newest: int) -> bool:
        """Return whether another log that extends beyond `next_offset` may have replaced it.

        `newest` is the append time of the newest record that was fetched: it shows that time has
        passed, even to a machine that was frozen together with its clocks.
        """
        unseen = self._clock.monotonic() - self._seen.monotonic
        if next_offset < _YOUNG and unseen > _REPLACEMENT_SECONDS:
            return True
        return unseen > _LONGEST_SIGHT or newest - self._seen.wall > 1000 * _LONGEST_SIGHT


async def _bounds(log: Log, clock: Clock, next_offset: int) -> tuple[int, int]:
    """Return the log's bounds. A new leader may not know yet which records all replicas have."""
    deadline = clock.monotonic() + _GRACE
    start, end = await log.bounds()
    while end < next_offset and clock.monotonic() < deadline:
        logger.warning("the log seems too short", end=end, next_offset=next_offset)
        await clock.sleep(_PAUSE)
        start, end = await log.bounds()
    return start, end
