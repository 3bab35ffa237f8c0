"""One audit, from the snapshots of all shards to the report."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from microfin_tools.audit import bodies, watermarks
from microfin_tools.audit.checks import (
    CLOSED_WITH_BALANCE,
    CONTRA_CHANGE,
    COUNTS,
    FULL_CHECKS,
    OPENED_AS_THEY_ARE,
    WINDOW_CHECKS,
    Check,
)
from microfin_tools.audit.legs import incomplete_transfers, requests_decided_twice
from microfin_tools.audit.log_places import FingerprintsAt, check_places
from microfin_tools.audit.report import LISTED, AuditReport, Findings, InTransit, Row
from microfin_tools.audit.scope import EVERYTHING, Scope, window
from microfin_tools.audit.second_look import LogEnds, describe, look_up_again
from microfin_tools.audit.shard import AuditedShard, on_all, snapshots
from microfin_tools.audit.watermarks import Watermark

Progress = Callable[[str, int, int], None]
"""Receives the current step's title, the number of finished steps, and the number of all steps."""


class AuditRun:
    """One audit; `microfin_tools.audit.audit` describes the parameters."""

    def __init__(
        self,
        *,
        at_rest: bool,
        since: bool,
        progress: Progress | None,
        log_ends: LogEnds | None,
        fingerprints_at: FingerprintsAt | None,
    ) -> None:
        self._at_rest = at_rest
        self._since = since
        self._progress = progress
        self._log_ends = log_ends
        self._fingerprints_at = fingerprints_at
        self._findings = Findings()
        self._done = 0
        self._steps = 1

    async def audit(self, shards: Sequence[AuditedShard]) -> AuditReport:
        """Audit `shards` and return the report, without its duration."""
        async with snapshots(shards):
            current = await on_all(shards, watermarks.current)
            before = await self._read_watermarks(shards)
            current = [
                now if then is None else await watermarks.rotate(shard, now, then)
                for shard, now, then in zip(shards, current, before, strict=True)
            ]
            scopes = [_scope(*pair) for pair in zip(current, before, strict=True)]
            full = scopes[0].full
            self._steps = len(shards) * (len(FULL_CHECKS if full else WINDOW_CHECKS) + 4) + 3
            await on_all(shards, lambda shard: self._check(shard, scopes[shard.number]))
            for shard, now, then in zip(shards, current, before, strict=True):
                if then is not None:
                    await self._check_change(shard, scopes[shard.number], now, then)
            unmatched = await self._match(shards, scopes)
            if self._at_rest:
                await self._check_nothing_in_transit(shards)
        if before[0] is not None:
            unmatched |= set(before[0].in_transit)
        self._step("transfers under way are looked up again")
        in_transit = await look_up_again(
            shards, unmatched, self._findings, at_rest=self._at_rest, log_ends=self._log_ends
        )
        if self._log_ends is not None:
            self._step("the log is compared with what was decided")
            await check_places(shards, self._findings, self._log_ends, self._fingerprints_at)
        if self._since and not self._findings.violations_total:
            await _remember(shards, current, list(in_transit))
        return self._report(shards, await describe(shards, in_transit), full=full)

    def _step(self, title: str) -> None:
        if self._progress is not None:
            self._progress(title, min(self._done, self._steps), self._steps)
        self._done += 1

    async def _read_watermarks(self, shards: Sequence[AuditedShard]) -> Sequence[Watermark | None]:
        if self._since:
            found = await on_all(shards, watermarks.stored)
            if all(watermark is not None for watermark in found):
                return found
        return [None] * len(shards)

    async def _check(self, shard: AuditedShard, scope: Scope) -> None:
        """Run the checks of one shard, and count its rows."""
        for check in FULL_CHECKS if scope.full else WINDOW_CHECKS:
            await self._run_check(shard, check, scope)
        for title, check_outcomes in zip(
            bodies.STEPS, (bodies.check_bodies, bodies.check_states), strict=True
        ):
            self._step(title)
            await check_outcomes(shard, scope, self._findings)
        self._step("rows are counted")
        row = await shard.connection.fetchrow(scope.clause + COUNTS, *scope.arguments)
        checked = self._findings.checked
        checked.accounts += row["accounts"]
        checked.entries += row["entries"]
        checked.outcomes += row["outcomes"]
        checked.operations += row["operations"]
        self._findings.quarantine += row["quarantine"]
        self._findings.outbox += row["outbox"]
        total, closed = await _first_rows(shard, scope, CLOSED_WITH_BALANCE)
        self._findings.closed_with_balance_total += total
        for _, rows in closed:
            self._findings.closed_with_balance.append({"shard": shard.number, **rows[0]})

    async def _run_check(
        self, shard: AuditedShard, check: Check, scope: Scope, arguments: Sequence[Any] = ()
    ) -> None:
        self._step(check.title)
        total, found = await _first_rows(shard, scope, check.query, arguments)
        for what, rows in found:
            self._findings.violation(check.invariant, what, shard.number, rows)
        self._findings.violations_total += total - len(found)

    async def _check_change(
        self, shard: AuditedShard, scope: Scope, now: Watermark, then: Watermark
    ) -> None:
        """Check what only a comparison with the last audit's place shows."""
        for partition, audited in then.next_offsets.items():
            next_offset = now.next_offsets.get(partition)
            if next_offset is None or next_offset < audited:
                self._findings.violation(
                    5,
                    "the partition is behind where the last audit saw it: was the shard restored?",
                    shard.number,
                    [
                        {
                            "partition": partition,
                            "next_offset": next_offset,
                            "audited_up_to": audited,
                        }
                    ],
                )
        await self._run_check(shard, OPENED_AS_THEY_ARE, scope, [then.looked_at])
        columns = watermarks.contra_columns(then.contra)
        await self._run_check(shard, CONTRA_CHANGE, scope, columns)

    async def _match(self, shards: Sequence[AuditedShard], scopes: Sequence[Scope]) -> set[str]:
        """Match legs over all shards; return the transfers to look up again."""
        for shard, scope in zip(shards, scopes, strict=True):
            self._step("every request is decided on one shard")
            others = [
                other
                for other in shards
                if other.number > shard.number or (not scope.full and other.number != shard.number)
            ]
            async for other, rows in requests_decided_twice(shard, scope, others):
                self._findings.violation(
                    4,
                    f"the request was decided on shard {shard.number} as well",
                    other.number,
                    rows,
                )
        self._step("every transfer between partitions arrives")
        return {operation async for operation in incomplete_transfers(shards, scopes)}

    async def _check_nothing_in_transit(self, shards: Sequence[AuditedShard]) -> None:
        sums: dict[str, int] = {}
        for shard in shards:
            for row in await shard.connection.fetch(
                "SELECT currency, sum(balance)::text AS balance FROM contra_balances"
                " WHERE contra = 'in_transit' GROUP BY currency"
            ):
                sums[row["currency"]] = sums.get(row["currency"], 0) + int(row["balance"])
        for currency, balance in sums.items():
            if balance:
                self._findings.violation(
                    8,
                    "in_transit does not add up to 0 over all shards",
                    None,
                    [{"currency": currency, "in_transit": str(balance)}],
                )

    def _report(
        self, shards: Sequence[AuditedShard], in_transit: InTransit, *, full: bool
    ) -> AuditReport:
        findings = self._findings
        return AuditReport(
            ok=not findings.violations_total,
            mode="full" if full else "since",
            at_rest=self._at_rest,
            shards=len(shards),
            checked=findings.checked,
            in_transit=in_transit,
            violations=findings.violations,
            violations_total=findings.violations_total,
            closed_with_balance=findings.closed_with_balance[:LISTED],
            closed_with_balance_total=findings.closed_with_balance_total,
            quarantine=findings.quarantine,
            outbox=findings.outbox,
            seconds=0,
        )


def _scope(current: Watermark, before: Watermark | None) -> Scope:
    if before is None:
        return EVERYTHING
    partitions = current.next_offsets | before.next_offsets
    return window({partition: before.next_offsets.get(partition, 0) for partition in partitions})


async def _first_rows(
    shard: AuditedShard, scope: Scope, query: str, arguments: Sequence[Any] = ()
) -> tuple[int, list[tuple[str, list[Row]]]]:
    """Return how many rows `query` finds, and the sentence and rows of the first of them."""
    found = await shard.connection.fetch(
        f"{scope.clause} SELECT what, rows, count(*) OVER () AS total"  # noqa: S608 - all ours
        f" FROM ({query}) AS found LIMIT {LISTED}",
        *scope.arguments,
        *arguments,
    )
    total = found[0]["total"] if found else 0
    return total, [(row["what"], _decode_rows(row["rows"])) for row in found]


def _decode_rows(text: str) -> list[Row]:
    """Return the rows that the database sent as JSON, without those that are missing."""
    rows: list[Row | None] = msgspec.json.decode(text)
    return [row for row in rows if row is not None]


async def _remember(
    shards: Sequence[AuditedShard], places: Sequence[Watermark], in_transit: list[str]
) -> None:
    first = msgspec.structs.replace(places[0], in_transit=in_transit)
    for shard, place in zip(shards, [first, *places[1:]], strict=True):
        await watermarks.store(shard, place)
