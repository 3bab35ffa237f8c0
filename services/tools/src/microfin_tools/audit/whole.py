"""A full audit of one shard: sweeps over whole tables, then the checks for what is suspicious."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from microfin_tools.audit import bodies
from microfin_tools.audit.checker import Checker
from microfin_tools.audit.checks import (
    CHANGES,
    DECIDED_ONCE,
    FULL_CHECKS,
    KNOWN_PARTITION,
    ONCE_IN_ARCHIVE,
    REJECTIONS,
    VERSION,
    Check,
)
from microfin_tools.audit.hold_checks import HOLD_CHECKS, HOLD_CHECKS_OF_ARCHIVE
from microfin_tools.audit.legs import INCOMPLETE_OPERATIONS
from microfin_tools.audit.report import Checked
from microfin_tools.audit.scope import everything
from microfin_tools.audit.shard import AuditedShard
from microfin_tools.audit.sweeps import CHAINED, SUMMED, SUMMED_AFTER_ARCHIVE, SWEPT
from microfin_tools.audit.tally import Tally

_AFTERWARDS: Final = (*SWEPT, VERSION, CHANGES, REJECTIONS)
_OTHERS: Final = [check for check in FULL_CHECKS if check not in _AFTERWARDS]

# An archive has no partitions: the ledger's are compared with what it says of them.
_OTHERS_OF_ARCHIVE: Final = [
    ONCE_IN_ARCHIVE,
    *(check for check in _OTHERS if check not in (KNOWN_PARTITION, DECIDED_ONCE)),
]

_Piece = Callable[[AuditedShard], Awaitable[None]]


class WholeShard:
    """One shard, or the archive of one, in a full audit. `alone`: there is no other database."""

    def __init__(self, checker: Checker, shard: AuditedShard, *, alone: bool) -> None:
        self._checker = checker
        self._shard = shard
        self._alone = alone
        self._scope = everything(archived=shard.has_archive)
        self._bodies = bodies.BodySweep()
        self._tally = Tally()
        self._rows_are_suspicious = False
        self._versions_changed_otherwise = False
        self._accounts = self._entries = self._accounts_with_holds = 0
        self._incomplete: set[str] = set()

    async def check(self) -> set[str]:
        """Check the shard.

        Returns, if it is the only one, the transfers between partitions that are not complete.
        """
        async with self._shard.beside() as second:
            await _share([self._shard, second] if second else [self._shard], self._pieces())
        suspicious = self._is_suspicious()
        await self._run(SWEPT, needed=suspicious)
        await self._run((VERSION, CHANGES), needed=suspicious or self._versions_need_a_look())
        await self._run((REJECTIONS,), needed=self._tally.rejections_for_a_balance > 0)
        on_holds = HOLD_CHECKS_OF_ARCHIVE if self._shard.is_archive else HOLD_CHECKS
        await self._run(on_holds, needed=suspicious or self._holds_need_a_look())
        if suspicious or self._tally.set_states or self._tally.on_holds:
            await self._checker.check_bodies(self._shard, self._scope, after_sweep=not suspicious)
            await self._checker.check_states(self._shard, self._scope)
        self._checker.add(
            Checked(
                accounts=0 if self._shard.is_archive else self._accounts,
                entries=self._entries,
                outcomes=self._tally.outcomes,
                operations=self._tally.operations,
            )
        )
        if not self._shard.is_archive:
            await self._checker.list_remarkable(self._shard, self._scope)
        return self._incomplete

    def _pieces(self) -> list[_Piece]:
        """Return all work on whole tables, in pieces, the longest first."""
        return [
            self._sweep_chains,
            self._sweep_bodies,
            self._sweep_sums,
            *([self._match_legs] if self._alone else []),
            self._count_outcomes,
            self._check_others,
        ]

    def _is_suspicious(self) -> bool:
        return (
            self._rows_are_suspicious
            or self._bodies.suspicious
            or self._tally.contra_is_suspicious
            or self._tally.effects != self._entries
        )

    def _versions_need_a_look(self) -> bool:
        return (
            self._versions_changed_otherwise
            or self._tally.set_states > 0
            or self._tally.on_holds > 0
        )

    def _holds_need_a_look(self) -> bool:
        return self._tally.on_holds > 0 or self._accounts_with_holds > 0

    async def _sweep_chains(self, shard: AuditedShard) -> None:
        self._checker.step("entries are compared with outcomes")
        row = await shard.count_by_hash_joins(self._scope.clause + CHAINED)
        if row["suspicious"]:
            self._rows_are_suspicious = True

    async def _sweep_bodies(self, shard: AuditedShard) -> None:
        self._checker.step("bodies are hashed")
        await self._bodies.run(shard)

    async def _sweep_sums(self, shard: AuditedShard) -> None:
        self._checker.step("entries are added up")
        row = await shard.count_by_hash_joins(SUMMED_AFTER_ARCHIVE if shard.has_archive else SUMMED)
        if row["suspicious"]:
            self._rows_are_suspicious = True
        self._versions_changed_otherwise = row["changed_otherwise"] > 0
        self._accounts, self._entries = row["accounts"], row["entries"]
        self._accounts_with_holds = row["with_holds"]

    async def _match_legs(self, shard: AuditedShard) -> None:
        async for row in shard.stream("incomplete", self._scope.clause + INCOMPLETE_OPERATIONS):
            self._incomplete.add(row["operation"])

    async def _count_outcomes(self, shard: AuditedShard) -> None:
        self._checker.step("outcomes are counted")
        await self._tally.run(shard)

    async def _check_others(self, shard: AuditedShard) -> None:
        await self._checker.run_all(
            shard, _OTHERS_OF_ARCHIVE if shard.is_archive else _OTHERS, self._scope
        )

    async def _run(self, checks: Sequence[Check], *, needed: bool) -> None:
        for check in checks:
            if needed:
                await self._checker.run(self._shard, check, self._scope)
            else:
                self._checker.step(check.title)


async def _share(connections: Sequence[AuditedShard], pieces: list[_Piece]) -> None:
    """Do `pieces` in their order, each on the next connection that is free."""

    async def work(shard: AuditedShard) -> None:
        await shard.bound()
        while pieces:
            await pieces.pop(0)(shard)

    async with asyncio.TaskGroup() as group:
        for shard in connections:
            group.create_task(work(shard))
