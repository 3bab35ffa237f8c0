"""One audit, from the snapshots of all shards to the report."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Final

import msgspec

from microfin_tools.audit import watermarks
from microfin_tools.audit.both_ends import (
    check_volumes,
    compare_ends,
    find_legs_in_both,
    judge_legs_in_both,
)
from microfin_tools.audit.checker import Checker, Progress
from microfin_tools.audit.checks import (
    CONTRA_CHANGE,
    FULL_CHECKS,
    OPENED_AS_THEY_ARE,
    WINDOW_CHECKS,
)
from microfin_tools.audit.hold_checks import (
    HOLD_CHECKS,
    HOLD_CHECKS_OF_ARCHIVE,
    HOLD_CHECKS_OF_WINDOW,
)
from microfin_tools.audit.impossible import AuditImpossible
from microfin_tools.audit.legs import incomplete_transfers, requests_decided_twice
from microfin_tools.audit.log_places import FingerprintsAt, check_places
from microfin_tools.audit.report import LISTED, AuditReport, InTransit
from microfin_tools.audit.scope import EVERYTHING, Scope, everything, window
from microfin_tools.audit.second_look import LogEnds, describe, look_up_again
from microfin_tools.audit.shard import AuditedShard, on_all, open_archives, snapshots
from microfin_tools.audit.watermarks import Watermark
from microfin_tools.audit.whole import WholeShard

_WINDOW_CHECKS: Final = (*WINDOW_CHECKS, *HOLD_CHECKS_OF_WINDOW)

_PARTITIONS_ARCHIVED: Final = "SELECT partition, last_offset FROM archived_partitions"

_REQUESTS: Final = """
SELECT replace(operation_id::text, '-', '') AS operation FROM outcomes
WHERE operation_id = ANY($1::uuid[]) AND leg = 'request'
"""


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
        archive_urls: Sequence[str],
    ) -> None:
        self._archive_urls = archive_urls
        self._at_rest = at_rest
        self._since = since
        self._log_ends = log_ends
        self._fingerprints_at = fingerprints_at
        self._checker = Checker(progress)
        self._shards = 0
        self._incomplete: set[str] = set()
        self._doubled: set[str] = set()

    async def audit(self, shards: Sequence[AuditedShard]) -> AuditReport:
        """Audit `shards` and return the report, without its duration."""
        self._shards = len(shards)
        async with contextlib.AsyncExitStack() as archived:
            archives: list[AuditedShard] = []
            async with snapshots(shards):
                await on_all(shards, lambda shard: shard.look_for_archive())
                current = await on_all(shards, watermarks.current)
                before = await self._read_watermarks(shards)
                if before[0] is not None:
                    await on_all(shards, lambda shard: shard.read_by_index())
                current = [
                    now if then is None else await watermarks.rotate(shard, now, then)
                    for shard, now, then in zip(shards, current, before, strict=True)
                ]
                scopes = [
                    _scope(shard, now, then)
                    for shard, now, then in zip(shards, current, before, strict=True)
                ]
                full = scopes[0].full
                if full:
                    archives = await archived.enter_async_context(self._open_archives(shards))
                async with snapshots(archives):
                    unmatched = await self._check_all(shards, archives, scopes, current, before)
            if before[0] is not None:
                unmatched |= set(before[0].in_transit)
            self._checker.step("transfers under way are looked up again")
            in_transit = await look_up_again(
                shards,
                unmatched,
                self._checker.findings,
                at_rest=self._at_rest,
                log_ends=self._log_ends,
                archives=archives,
            )
            await judge_legs_in_both(self._checker.findings, shards, archives, self._doubled)
        if self._log_ends is not None:
            self._checker.step("the log is compared with what was decided")
            await check_places(
                shards, self._checker.findings, self._log_ends, self._fingerprints_at
            )
        if self._since and not self._checker.findings.violations_total:
            await _remember(shards, current, list(in_transit))
        return self._report(shards, await describe(shards, in_transit), full=full)

    @contextlib.asynccontextmanager
    async def _open_archives(
        self, shards: Sequence[AuditedShard]
    ) -> AsyncIterator[list[AuditedShard]]:
        """Connect to the archives if there is anything in them."""
        if not any(shard.has_archive for shard in shards):
            yield []
            return
        if not self._archive_urls:
            raise AuditImpossible(
                "Old volumes of this ledger are in its archive, and a full audit reads both: set "
                "MICROFIN_ARCHIVES to the URLs of the shards' archives. `microfin audit --since` "
                "needs them for its first audit only."
            )
        async with open_archives(self._archive_urls, shards) as archives:
            yield archives

    async def _check_all(
        self,
        shards: Sequence[AuditedShard],
        archives: Sequence[AuditedShard],
        scopes: Sequence[Scope],
        current: Sequence[Watermark],
        before: Sequence[Watermark | None],
    ) -> set[str]:
        """Check everything in the open snapshots; return the transfers to look up again."""
        full = scopes[0].full
        checks = len((*FULL_CHECKS, *HOLD_CHECKS) if full else _WINDOW_CHECKS)
        self._checker.steps = len(shards) * (checks + (6 if full else 4)) + 3
        self._checker.steps += len(archives) * (len(FULL_CHECKS) + len(HOLD_CHECKS_OF_ARCHIVE) + 8)
        for shard, archive in zip(shards, archives, strict=False):
            await check_volumes(shard, archive)
        await on_all(shards, lambda shard: self._check(shard, scopes[shard.number], archives))
        for shard, now, then in zip(shards, current, before, strict=True):
            if then is not None:
                await self._check_change(shard, scopes[shard.number], now, then)
        await on_all(archives, lambda archive: self._check_archive(shards, archive))
        if archives:
            self._doubled = await find_legs_in_both(self._checker, shards, archives)
        unmatched = await self._match(shards, scopes, archives)
        if self._at_rest:
            await self._check_nothing_in_transit(shards)
        return unmatched

    async def _check_archive(self, shards: Sequence[AuditedShard], archive: AuditedShard) -> None:
        """Check an archive by itself, as a ledger at rest, and against its shard."""
        await WholeShard(self._checker, archive, alone=False).check()
        await compare_ends(self._checker, shards[archive.number], archive)

    async def _read_watermarks(self, shards: Sequence[AuditedShard]) -> Sequence[Watermark | None]:
        """Return the places where the last audit ended, or Nones for an audit of everything.

        What came after the last audit may be in the archive by now, and so may the debit of a
        transfer that was under way then.
        """
        everything_anew = [None] * len(shards)
        if not self._since:
            return everything_anew
        found = await on_all(shards, watermarks.stored)
        first = found[0]
        if first is None or None in found:
            return everything_anew
        if any(await on_all(shards, lambda shard: _is_archived(shard, found[shard.number]))):
            return everything_anew
        if any(shard.has_archive for shard in shards) and first.in_transit:
            requests = await on_all(shards, lambda shard: _requests(shard, first.in_transit))
            if not set(first.in_transit) <= set().union(*requests):
                return everything_anew
        return found

    async def _check(
        self, shard: AuditedShard, scope: Scope, archives: Sequence[AuditedShard]
    ) -> None:
        if scope.full:
            alone = self._shards == 1 and not archives
            incomplete = await WholeShard(self._checker, shard, alone=alone).check()
            self._incomplete |= incomplete
            return
        await self._checker.run_all(shard, _WINDOW_CHECKS, scope)
        await self._checker.check_bodies(shard, scope)
        await self._checker.check_states(shard, scope)
        await self._checker.count_rows(shard, scope)
        await self._checker.list_remarkable(shard, scope)

    async def _check_change(
        self, shard: AuditedShard, scope: Scope, now: Watermark, then: Watermark
    ) -> None:
        """Check what only a comparison with the last audit's place shows."""
        for partition, audited in then.next_offsets.items():
            next_offset = now.next_offsets.get(partition)
            if next_offset is None or next_offset < audited:
                self._checker.findings.violation(
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
        await self._checker.run(shard, OPENED_AS_THEY_ARE, scope, [then.looked_at])
        columns = watermarks.contra_columns(then.contra)
        await self._checker.run(shard, CONTRA_CHANGE, scope, columns)

    async def _match(
        self,
        shards: Sequence[AuditedShard],
        scopes: Sequence[Scope],
        archives: Sequence[AuditedShard],
    ) -> set[str]:
        """Match legs over all shards and archives; return the transfers to look up again."""
        for shard, scope in zip(shards, scopes, strict=True):
            self._checker.step("every request is decided on one shard")
            others = [
                other
                for other in shards
                if other.number > shard.number or (not scope.full and other.number != shard.number)
            ]
            if not others:
                continue
            async for other, rows in requests_decided_twice(shard, scope, others):
                self._checker.findings.violation(
                    4,
                    f"the request was decided on shard {shard.number} as well",
                    other.number,
                    rows,
                )
        self._checker.step("every transfer between partitions arrives")
        if scopes[0].full and len(shards) == 1 and not archives:
            return self._incomplete
        everywhere = [*shards, *archives]
        read = [*scopes, *(EVERYTHING for _ in archives)]
        return {operation async for operation in incomplete_transfers(everywhere, read)}

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
                self._checker.findings.violation(
                    8,
                    "in_transit does not add up to 0 over all shards",
                    None,
                    [{"currency": currency, "in_transit": str(balance)}],
                )

    def _report(
        self, shards: Sequence[AuditedShard], in_transit: InTransit, *, full: bool
    ) -> AuditReport:
        findings = self._checker.findings
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


def _scope(shard: AuditedShard, current: Watermark, before: Watermark | None) -> Scope:
    if before is None:
        return everything(archived=shard.has_archive)
    partitions = current.next_offsets | before.next_offsets
    return window(
        {partition: before.next_offsets.get(partition, 0) for partition in partitions},
        archived=shard.has_archive,
    )


async def _requests(shard: AuditedShard, operations: list[str]) -> set[str]:
    """Return those of `operations` whose request is on the shard."""
    rows = await shard.connection.fetch(_REQUESTS, operations)
    return {row["operation"] for row in rows}


async def _is_archived(shard: AuditedShard, watermark: Watermark | None) -> bool:
    """Return whether any of what came after `watermark` is in the archive by now."""
    audited = watermark.next_offsets if watermark else {}
    rows = await shard.connection.fetch(_PARTITIONS_ARCHIVED)
    return any(row["last_offset"] >= audited.get(row["partition"], 0) for row in rows)


async def _remember(
    shards: Sequence[AuditedShard], places: Sequence[Watermark], in_transit: list[str]
) -> None:
    first = msgspec.structs.replace(places[0], in_transit=in_transit)
    for shard, place in zip(shards, [first, *places[1:]], strict=True):
        await watermarks.store(shard, place)
