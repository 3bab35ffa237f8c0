"""Whether the log holds the records that the partitions have decided.

A partition's row has the next offset and a hash of the record before it. The audit first reads the
row and then the log. A log only grows, so neither a worker at work nor a trimmed log changes the
result.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

import msgspec

from microfin_tools.audit.report import Findings, Row
from microfin_tools.audit.second_look import LogEnds
from microfin_tools.audit.shard import AuditedShard, on_all

FingerprintsAt = Callable[[Mapping[int, int]], Awaitable[Mapping[int, bytes]]]
"""Returns, by partition, the fingerprints of the records at these offsets that the log still keeps
and returns."""

_PAUSES: Final = (0.0, 0.5, 1.0, 2.0, 3.0, 4.0)
"""Seconds before each read: for ten seconds the answer may come from a broker that has just become
the leader, or that does not know yet that another one has."""

_PLACES: Final = "SELECT partition, next_offset, fingerprint FROM partitions ORDER BY partition"


class _Place(msgspec.Struct, frozen=True):
    shard: int
    partition: int
    next_offset: int
    fingerprint: bytes | None


async def check_places(
    shards: Sequence[AuditedShard],
    findings: Findings,
    log_ends: LogEnds,
    fingerprints_at: FingerprintsAt | None,
) -> None:
    """Find the partitions that are beyond the log's end, or that decided a record other than the
    log's. If the log does not answer, this finds nothing."""
    places = [place for found in await on_all(shards, _places) for place in found]
    beyond, ends = await _beyond(places, log_ends)
    for place in beyond:
        what = "the log ends before what this partition has decided: see docs/runbooks/log-lost.md"
        _add(findings, place, what, {"log_end": ends.get(place.partition)})
    if fingerprints_at is not None and ends:
        marked = [it for it in places if it.fingerprint is not None and it not in beyond]
        for place in await _of_another_log(marked, fingerprints_at):
            what = "the log holds another record than the one that was decided last"
            _add(findings, place, what, {"fingerprint": (place.fingerprint or b"").hex()})


async def _places(shard: AuditedShard) -> list[_Place]:
    return [_Place(shard.number, *row) for row in await shard.connection.fetch(_PLACES)]


async def _beyond(
    places: list[_Place], log_ends: LogEnds
) -> tuple[list[_Place], Mapping[int, int]]:
    """Return the places that are beyond the log's end in all attempts, and the ends."""
    ends: Mapping[int, int] = {}
    for pause in _PAUSES:
        await asyncio.sleep(pause)
        answer = await log_ends()
        if answer is None:
            return [], {}
        ends = answer
        places = [place for place in places if place.next_offset > ends.get(place.partition, 0)]
        if not places:
            break
    return places, ends


async def _of_another_log(places: list[_Place], fingerprints_at: FingerprintsAt) -> list[_Place]:
    """Return the places whose record is a different one in all attempts."""
    for pause in _PAUSES[:3]:
        await asyncio.sleep(pause)
        read = await fingerprints_at(
            {place.partition: place.next_offset - 1 for place in places if place.next_offset}
        )
        places = [it for it in places if read.get(it.partition, it.fingerprint) != it.fingerprint]
        if not places:
            break
    return places


def _add(findings: Findings, place: _Place, what: str, more: Row) -> None:
    row = {"partition": place.partition, "next_offset": place.next_offset, **more}
    findings.violation(5, what, place.shard, [row])
