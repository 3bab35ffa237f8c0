"""Running checks: each one on a shard, its findings into the report, its title to the progress."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from microfin_tools.audit import bodies
from microfin_tools.audit.checks import CLOSED_WITH_BALANCE, COUNTS, WAITING, Check
from microfin_tools.audit.report import LISTED, Checked, Findings, Row
from microfin_tools.audit.scope import Scope
from microfin_tools.audit.shard import AuditedShard

Progress = Callable[[str, int, int], None]
"""Receives the current step's title, the number of finished steps, and the number of all steps."""


class Checker:
    """Runs checks. `steps` is how many there will be, for the progress."""

    def __init__(self, progress: Progress | None) -> None:
        self.findings = Findings()
        self.steps = 1
        self._progress = progress
        self._done = 0

    def step(self, title: str) -> None:
        """Report that the step with this title begins."""
        if self._progress is not None:
            self._progress(title, min(self._done, self.steps), self.steps)
        self._done += 1

    async def run_all(self, shard: AuditedShard, checks: Iterable[Check], scope: Scope) -> None:
        """Run `checks` in turn."""
        for check in checks:
            await self.run(shard, check, scope)

    async def run(
        self, shard: AuditedShard, check: Check, scope: Scope, arguments: Sequence[Any] = ()
    ) -> None:
        """Run one check; `arguments` are its own, after the scope's."""
        self.step(check.title)
        total, found = await _first_rows(shard, scope, check.query, arguments)
        for what, rows in found:
            self.findings.violation(check.invariant, shard.say(what), shard.number, rows)
        self.findings.violations_total += total - len(found)

    async def check_bodies(
        self, shard: AuditedShard, scope: Scope, *, after_sweep: bool = False
    ) -> None:
        """Find the outcomes whose columns are not those of their body."""
        self.step(bodies.BODIES_STEP)
        await bodies.check_bodies(shard, scope, self.findings, after_sweep=after_sweep)

    async def check_states(self, shard: AuditedShard, scope: Scope) -> None:
        """Find the accounts whose state is not the one that was last set."""
        self.step(bodies.STATES_STEP)
        await bodies.check_states(shard, scope, self.findings)

    async def count_rows(self, shard: AuditedShard, scope: Scope) -> None:
        """Count the rows of the scope."""
        self.step("rows are counted")
        row = await shard.connection.fetchrow(scope.clause + COUNTS, *scope.arguments)
        self.add(Checked(**row))

    def add(self, checked: Checked) -> None:
        """Add the rows that were checked on one shard."""
        total = self.findings.checked
        total.accounts += checked.accounts
        total.entries += checked.entries
        total.outcomes += checked.outcomes
        total.operations += checked.operations

    async def list_remarkable(self, shard: AuditedShard, scope: Scope) -> None:
        """Note what is no violation: what waits, and closed accounts that hold money."""
        row = await shard.connection.fetchrow(WAITING)
        self.findings.quarantine += row["quarantine"]
        self.findings.outbox += row["outbox"]
        total, closed = await _first_rows(shard, scope, CLOSED_WITH_BALANCE)
        self.findings.closed_with_balance_total += total
        for _, rows in closed:
            self.findings.closed_with_balance.append({"shard": shard.number, **rows[0]})


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
