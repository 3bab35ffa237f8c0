"""The report of an audit: violations of invariants, and remarkable rows that are no violation."""

from typing import Any, Final, Literal

import msgspec

LISTED: Final = 100
"""How many violations a report lists; it counts them all."""

Row = dict[str, Any]


class Violation(msgspec.Struct, frozen=True, kw_only=True):
    """One violation. `invariant` is the invariant's number in docs/guide/invariants.md.

    `rows` are the rows that show it; `shard` is None if it spans shards.
    """

    invariant: int
    what: str
    shard: int | None
    rows: list[Row]


class Checked(msgspec.Struct, kw_only=True):
    """How many rows the audit has checked."""

    accounts: int = 0
    entries: int = 0
    outcomes: int = 0
    operations: int = 0


class InTransit(msgspec.Struct, kw_only=True):
    """Transfers that were debited and not yet credited or refunded.

    `in_outbox` of them wait in an outbox, `quarantined` wait for `microfin quarantine replay`, and
    the others are in the log. `oldest_seconds` is the age of the oldest.
    """

    operations: int = 0
    in_outbox: int = 0
    quarantined: int = 0
    oldest_seconds: int | None = None


class AuditReport(msgspec.Struct, kw_only=True):
    """The result of one audit. `ok` only if every invariant holds.

    `mode` is `since` if the audit checked only what came after the last one. `violations` are the
    first hundred of `violations_total`. The report also has, although they are no violations:
    accounts that got a refund after they were closed, the records in quarantine that were not
    replayed, and the commands in outboxes.
    """

    ok: bool
    mode: Literal["full", "since"]
    at_rest: bool
    shards: int
    checked: Checked
    in_transit: InTransit
    violations: list[Violation]
    violations_total: int
    closed_with_balance: list[Row]
    closed_with_balance_total: int
    quarantine: int
    outbox: int
    seconds: float


class Findings:
    """Collects the findings of an audit in constant memory: counts all, keeps the first ones."""

    def __init__(self) -> None:
        self.checked = Checked()
        self.violations: list[Violation] = []
        self.violations_total = 0
        self.closed_with_balance: list[Row] = []
        self.closed_with_balance_total = 0
        self.quarantine = 0
        self.outbox = 0

    def violation(self, invariant: int, what: str, shard: int | None, rows: list[Row]) -> None:
        """Add one violation."""
        self.violations_total += 1
        if len(self.violations) < LISTED:
            self.violations.append(
                Violation(invariant=invariant, what=what, shard=shard, rows=rows)
            )
