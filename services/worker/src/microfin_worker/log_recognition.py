"""Recognising the log: is it the one that the partition's row was written from?"""

from typing import Final

import structlog

from microfin_worker.edges import Clock, Log
from microfin_worker.fingerprint import fingerprint

logger = structlog.get_logger(__name__)

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


async def _bounds(log: Log, clock: Clock, next_offset: int) -> tuple[int, int]:
    """Return the log's bounds; a new leader may not know yet up to where all replicas have it."""
    deadline = clock.monotonic() + _GRACE
    start, end = await log.bounds()
    while end < next_offset and clock.monotonic() < deadline:
        logger.warning("the log seems too short", end=end, next_offset=next_offset)
        await clock.sleep(_PAUSE)
        start, end = await log.bounds()
    return start, end
