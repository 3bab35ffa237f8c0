"""Whether the log holds what the partitions say they have decided.

A partition's row says which offset is next and, as a hash, which record was before it. The row is
read first and the log after it: a log only grows, so a worker that goes on meanwhile changes
nothing, and neither does a log that is trimmed.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

import msgspec

from microfin_tools.audit.report import Findings, Row
from microfin_tools.audit.second_look import LogEnds
from microfin_tools.audit.shard import AuditedShard, on_all

FingerprintsAt = Callable[[Mapping[int, int]], Awaitable[Mapping[int, bytes]]]
"""Returns, by partition, the fingerprints of the records at these offsets, as far as the log keeps
and gives them."""

_PAUSES: Final = (0.0, 0.5, 1.0, 2.0, 3.0, 4.0)
"""Seconds before each look: for ten of them, the end may be one of a broker that has just taken
over, or does not know yet that another has."""

_PLACES: Final = "SELECT partition, next_offset, fingerprint FROM partitions ORDER BY partition"


class _Place(msgspec.Struct, frozen=True):
    shard: int
    partition: int
    next_offset: int
    fingerprint: bytes | None


async def look_at_places(
    shards: Sequence[AuditedShard],
    findings: Findings,
    log_ends: LogEnds,
    fingerprints_at: FingerprintsAt | None,
) -> None:
    """Find the partitions that are beyond the log's end, or have decided another record than it
    holds. Where the log does not answer, nothing is found."""
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
    """Return the places that are beyond the log's end, however often it is asked, and the ends."""
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
    """Return the places whose record is another, however often it is read."""
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
