"""A second look at the transfers that are incomplete in one snapshot of each shard.

The shards' snapshots are of different moments, and money moves on between them. So the audit looks
incomplete transfers up again, on all shards, in later snapshots. A transfer that went on is
complete by now. A transfer in transit has its command in an outbox or in the log. An earlier leg
that is missing twice is really missing.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import islice
from typing import Final

import msgspec

from microfin_tools.audit.legs import LEG_COLUMNS, LegOutcome, decode_legs, judge_all
from microfin_tools.audit.report import Findings, InTransit, Row
from microfin_tools.audit.shard import AuditedShard, on_all

LogEnds = Callable[[], Awaitable[dict[int, int] | None]]
"""Asks the log for the end offset of each partition; returns None if it does not answer."""

_PAUSES: Final = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8)
"""Seconds before each look, while money moves."""

_PAUSES_AT_REST: Final = (0.0, 0.0)

_AT_A_TIME: Final = 1_000

_DECIDED_WITHIN: Final = 20
"""How often to check, every tenth of a second, whether the log is decided to its end."""

_LEGS: Final = f"""
SELECT replace(operation_id::text, '-', '') AS operation, jsonb_agg({LEG_COLUMNS}) AS legs
FROM outcomes WHERE operation_id = ANY($1::uuid[]) GROUP BY operation_id
"""  # noqa: S608 - the columns are ours

IN_OUTBOX: Final = """
SELECT DISTINCT replace(operation_id::text, '-', '') FROM outbox
WHERE operation_id = ANY($1::uuid[])
"""

# A record in quarantine is only bytes, which contain the id of its operation as text.
IN_QUARANTINE: Final = """
SELECT DISTINCT id FROM unnest($1::text[]) AS wanted (id)
JOIN quarantine ON position(convert_to(id, 'UTF8') IN value) > 0 AND replayed_at IS NULL
"""

_NOW: Final = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint"


class Trace(msgspec.Struct):
    """The state of one operation at the latest look."""

    legs: list[LegOutcome]
    unexplained: str = ""
    in_outbox: bool = False
    in_quarantine: bool = False


class _Seen(msgspec.Struct):
    legs: dict[str, list[LegOutcome]]
    outbox: set[str]
    quarantine: set[str]


async def look_up_again(
    shards: Sequence[AuditedShard],
    operations: Iterable[str],
    findings: Findings,
    *,
    at_rest: bool,
    log_ends: LogEnds | None,
    archives: Sequence[AuditedShard] = (),
) -> dict[str, Trace]:
    """Look the operations up again and return those that are in transit.

    All others are complete or go to `findings`; `at_rest`, so do those in transit. With `log_ends`,
    a transfer no longer counts as in the log when the log is decided beyond it. `archives` hold
    legs as well.
    """
    everywhere = [*shards, *archives]
    pending = {operation: Trace([]) for operation in operations}
    for pause in _PAUSES_AT_REST if at_rest else _PAUSES:
        if not pending:
            return {}
        await asyncio.sleep(pause)
        await _look(everywhere, pending, findings)
    lost: set[str] = set()
    if not at_rest and log_ends is not None:
        lost = await _lost(shards, archives, pending, findings, log_ends)
    for operation in list(pending):
        if at_rest or operation in lost:
            _report_missing(operation, pending.pop(operation), findings)
    return pending


async def describe(shards: Sequence[AuditedShard], traces: dict[str, Trace]) -> InTransit:
    """Return how many transfers are in transit, where, and for how long the oldest has been."""
    if not traces:
        return InTransit()
    now: int = await shards[0].connection.fetchval(_NOW)
    oldest = min(leg.time for trace in traces.values() for leg in trace.legs)
    return InTransit(
        operations=len(traces),
        in_outbox=sum(trace.in_outbox for trace in traces.values()),
        quarantined=sum(trace.in_quarantine for trace in traces.values()),
        oldest_seconds=max(0, (now - oldest) // 1000),
    )


async def _look(
    shards: Sequence[AuditedShard], pending: dict[str, Trace], findings: Findings
) -> None:
    """Look all of `pending` up once, and drop those that are complete or a violation."""
    remaining = iter(list(pending))
    while operations := list(islice(remaining, _AT_A_TIME)):
        seen = await _see(shards, operations)
        for operation in operations:
            _update(pending, operation, seen, findings)


async def legs_of(
    shards: Sequence[AuditedShard], operations: Sequence[str]
) -> dict[str, list[LegOutcome]]:
    """Return the legs of `operations` in all of `shards`, by operation."""
    return (await _see(shards, list(operations))).legs


async def _see(shards: Sequence[AuditedShard], operations: list[str]) -> _Seen:
    async def read(shard: AuditedShard) -> _Seen:
        async with shard.snapshot():
            fetch = shard.connection.fetch
            legs = {
                row["operation"]: [
                    msgspec.structs.replace(leg, shard=shard.number, archived=shard.is_archive)
                    for leg in decode_legs(row["legs"])
                ]
                for row in await fetch(_LEGS, operations)
            }
            outbox = {row[0] for row in await fetch(IN_OUTBOX, operations)}
            quarantine = {row[0] for row in await fetch(IN_QUARANTINE, operations)}
        return _Seen(legs, outbox, quarantine)

    everywhere = _Seen({}, set(), set())
    for seen in await on_all(shards, read):
        for operation, legs in seen.legs.items():
            everywhere.legs.setdefault(operation, []).extend(legs)
        everywhere.outbox |= seen.outbox
        everywhere.quarantine |= seen.quarantine
    return everywhere


def _update(pending: dict[str, Trace], operation: str, seen: _Seen, findings: Findings) -> None:
    legs = seen.legs.get(operation, [])
    verdict = judge_all(legs)
    if verdict.state == "complete":
        del pending[operation]
    elif verdict.state == "wrong" or (
        verdict.state == "unexplained" and pending[operation].unexplained == verdict.what
    ):
        del pending[operation]
        findings.violation(
            verdict.invariant, verdict.what, None, [_named(operation, leg) for leg in legs]
        )
    else:
        pending[operation] = Trace(
            legs, verdict.what, operation in seen.outbox, operation in seen.quarantine
        )


async def _lost(
    shards: Sequence[AuditedShard],
    archives: Sequence[AuditedShard],
    pending: dict[str, Trace],
    findings: Findings,
    log_ends: LogEnds,
) -> set[str]:
    """Return those of `pending` that are neither in an outbox nor in the log.

    A command that is in no outbox is in the log, below its current end. When all partitions have
    decided up to that end, it has left an outcome, or was forwarded (after a growth): hence the
    second round.
    """
    lost = {operation for operation, trace in pending.items() if _without_trace(trace)}
    for _ in range(2):
        ends = await log_ends() if lost else None
        if ends is None or not await _decided_up_to(shards, ends):
            return set()
        before = {operation: len(pending[operation].legs) for operation in lost}
        await _look([*shards, *archives], pending, findings)
        lost = {
            operation
            for operation in lost & pending.keys()
            if _without_trace(pending[operation])
            and len(pending[operation].legs) == before[operation]
        }
    return lost


def _without_trace(trace: Trace) -> bool:
    return not trace.in_outbox and not trace.in_quarantine


async def _decided_up_to(shards: Sequence[AuditedShard], ends: dict[int, int]) -> bool:
    """Wait a moment for the partitions to decide up to `ends`; return whether they have."""
    for _ in range(_DECIDED_WITHIN):
        rows = await on_all(
            shards,
            lambda shard: shard.connection.fetch("SELECT partition, next_offset FROM partitions"),
        )
        decided = {row["partition"]: row["next_offset"] for found in rows for row in found}
        if all(decided.get(partition, 0) >= end for partition, end in ends.items()):
            return True
        await asyncio.sleep(0.1)
    return False


def _report_missing(operation: str, trace: Trace, findings: Findings) -> None:
    if trace.in_outbox:
        place = "; its next command waits in an outbox"
    elif trace.in_quarantine:
        place = "; its next command is in quarantine: see `microfin quarantine list`"
    else:
        place = " and no command for it is under way"
    what = "a debited transfer has neither arrived nor been refunded" + place
    findings.violation(8, what, None, [_named(operation, leg) for leg in trace.legs])


def _named(operation: str, leg: LegOutcome) -> Row:
    return {"operation": operation, **leg.row()}
