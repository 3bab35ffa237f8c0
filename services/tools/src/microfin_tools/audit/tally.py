"""A tally of all outcomes of a shard: how many there are of each sort, and how much they moved."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Final

from microfin_tools.audit.shard import AuditedShard

_SORTS: Final = """
SELECT partition, kind, leg, status, currency, available IS NOT NULL AS saw_balance,
    kind = 'transfer' OR (kind = 'capture' AND counterparty <> '') AS has_receiver,
    count(*) AS outcomes, sum(amount)::text AS amount,
    count(*) FILTER (WHERE held_change IS NOT NULL OR held IS NOT NULL) AS on_holds
FROM outcomes GROUP BY partition, kind, leg, status, currency, saw_balance, has_receiver
"""

_CONTRA: Final = """
SELECT partition, contra, currency, balance::text FROM contra_balances
UNION ALL
SELECT partition, contra, currency, (-balance)::text FROM archived_contra_balances
"""

_MONEY: Final = ("deposit", "withdraw", "transfer", "capture")

_Side = tuple[int, str, str]


class Tally:
    """What one scan of the outcomes counts."""

    def __init__(self) -> None:
        self.outcomes = 0
        self.operations = 0
        self.effects = 0
        """How many entries the outcomes imply."""
        self.set_states = 0
        self.on_holds = 0
        """How many outcomes changed what is held, or show that anything is."""
        self.rejections_for_a_balance = 0
        self.partitions: set[int] = set()
        self.contra_is_suspicious = False

    async def run(self, shard: AuditedShard) -> None:
        """Count the outcomes in the open snapshot, and compare their sums with the contra balances,
        from those of the archive on.

        The sums are those of the entries, if each entry has an outcome of the same amount, and each
        outcome the currency of its account.
        """
        contra: dict[_Side, Decimal] = {}
        for row in await shard.connection.fetch(_CONTRA):
            side = (row["partition"], row["contra"], row["currency"])
            contra[side] = contra.get(side, Decimal(0)) + Decimal(row["balance"])
        for row in await shard.connection.fetch(_SORTS):
            self._count(row)
            side, change = _contra_of(row)
            contra[side] = contra.get(side, Decimal(0)) + change
        self.contra_is_suspicious = any(contra.values())

    def _count(self, row: Any) -> None:
        number: int = row["outcomes"]
        self.partitions.add(row["partition"])
        self.outcomes += number
        if row["leg"] == "request":
            self.operations += number
        if row["kind"] == "set_state":
            self.set_states += number
        if row["saw_balance"]:
            self.rejections_for_a_balance += number
        self.on_holds += row["on_holds"]
        self.effects += number * len(list(_signs(row)))


def _signs(row: Any) -> Iterator[int]:
    """Yield 1 or -1 for each entry that an outcome of this sort implies, with the amount's sign."""
    if row["status"] == "rejected" or row["kind"] not in _MONEY:
        return
    yield 1 if row["kind"] == "deposit" or row["leg"] != "request" else -1
    if row["status"] == "settled" and row["has_receiver"] and row["leg"] == "request":
        yield 1


def _contra_of(row: Any) -> tuple[_Side, Decimal]:
    contra = "in_transit" if row["has_receiver"] else "cash"
    change = sum(_signs(row)) * Decimal(row["amount"] or 0)
    return (row["partition"], contra, row["currency"]), change
