"""Recognising the log: is it the one that the partition's row was written from?

Kafka's client follows a topic that is deleted and made anew under its name without a word. A worker
would go on at its offset in the new log, and never decide what that holds before it.
"""

from typing import Final, NamedTuple

import structlog

from microfin_worker.fingerprint import fingerprint
from microfin_worker.ports import Clock, Log

logger = structlog.get_logger(__name__)

_YOUNG: Final = 100_000  # offsets that a new log may reach between two looks
_BLINK: Final = 0.1  # seconds in which no topic is deleted, made anew and written to
_LONGEST_SIGHT: Final = 6.0  # seconds; an idle worker looks every five
_GRACE: Final = 10.0  # seconds in which a log may seem too short after its leader changed
_PAUSE: Final = 0.5


class LogLost(Exception):
    """The log is not the one that this partition's row was written from."""


async def recognise_log(log: Log, clock: Clock, next_offset: int, mark: bytes | None) -> None:
    """Raise `LogLost` unless `log` holds what was decided before `next_offset`.

    `mark` is the fingerprint of the record before it. A record that was trimmed away, exactly up to
    `next_offset`, need not be recognised.
    """
    start, end = await _bounds(log, clock, next_offset)
    if not start <= next_offset <= end:
        raise LogLost(
            f"The log keeps offsets {start} to {end}, and {next_offset} is next to be decided: "
            "records were lost or the topic was replaced. See docs/runbooks/log-lost.md."
        )
    if mark is None or next_offset == start:
        return
    record = await log.record_at(next_offset - 1)
    if record is None or fingerprint(record) != mark:
        raise LogLost(
            f"The record at offset {next_offset - 1} is not the one that was decided last: "
            "the topic was replaced. See docs/runbooks/log-lost.md."
        )


async def recognise_again(log: Log, clock: Clock, next_offset: int, mark: bytes | None) -> None:
    """Do what `recognise_log` does, in one round trip where nothing is wrong."""
    if mark is not None:
        record = await log.reread(next_offset - 1)
        if record is not None and fingerprint(record) == mark:
            return
    await recognise_log(log, clock, next_offset, mark)


class Moment(NamedTuple):
    """A moment by both clocks: monotonic seconds, and milliseconds since the Unix epoch."""

    monotonic: float
    wall: int


class LastSight:
    """When the log was last known to be the right one.

    An answer shows what was so when it was asked for: before it is read, a process may be frozen.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen = self.now()

    def now(self) -> Moment:
        """Return the moment in which the log is asked."""
        return Moment(self._clock.monotonic(), self._clock.now())

    def renew(self, asked: Moment) -> None:
        """Note that it was the right one when it was asked."""
        self._seen = asked

    def may_deceive(self, next_offset: int, newest: int) -> bool:
        """Tell whether another log that reaches beyond `next_offset` may be in its place.

        `newest` is the append time of the newest record that was fetched: a machine that was
        frozen with its clocks tells by it.
        """
        unseen = self._clock.monotonic() - self._seen.monotonic
        if next_offset < _YOUNG and unseen > _BLINK:
            return True
        return unseen > _LONGEST_SIGHT or newest - self._seen.wall > 1000 * _LONGEST_SIGHT


async def _bounds(log: Log, clock: Clock, next_offset: int) -> tuple[int, int]:
    """Return the log's bounds; a new leader may not know yet up to where all replicas have it."""
    deadline = clock.monotonic() + _GRACE
    start, end = await log.bounds()
    while end < next_offset and clock.monotonic() < deadline:
        logger.warning("the log seems too short", end=end, next_offset=next_offset)
        await clock.sleep(_PAUSE)
        start, end = await log.bounds()
    return start, end
