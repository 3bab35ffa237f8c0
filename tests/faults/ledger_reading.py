"""Reads what the ledger holds of one round, straight from PostgreSQL."""

from collections.abc import Mapping
from typing import Any

import asyncpg
import msgspec

from faults.ledger import AccountState, Entry, Ledger, Leg

_LEGS = """
SELECT operation_id, leg, kind, status, account, counterparty, user_id, amount, seq, balance,
    reason, needed, available, partition, log_offset, reference, held, hold, held_change, hold_left
FROM outcomes WHERE partition = $1 AND log_offset >= $2 ORDER BY log_offset
"""
_ENTRIES = """
SELECT e.account, e.seq, e.amount, e.balance_after, e.operation_id, e.leg, e.partition,
    e.reference
FROM accounts a
LEFT JOIN unnest($1::text[], $2::bigint[]) AS known (number, seq) USING (number)
JOIN entries e ON e.account = a.number AND e.seq > coalesce(known.seq, 0)
ORDER BY e.account, e.seq
"""


class Mark(msgspec.Struct, frozen=True):
    """A moment at rest: every partition's place in the log, and every account."""

    offsets: Mapping[int, int]
    states: Mapping[str, AccountState]


async def mark(url: str) -> Mark:
    """Return what the ledger holds. No money may be moving."""
    connection = await asyncpg.connect(url, timeout=10)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            return await _mark(connection)
    finally:
        await connection.close()


async def _mark(connection: Any) -> Mark:
    partitions = await connection.fetch("SELECT partition, next_offset FROM partitions")
    accounts = await connection.fetch("SELECT number, seq, balance FROM accounts")
    return Mark(
        {row["partition"]: row["next_offset"] for row in partitions},
        {row["number"]: AccountState(row["seq"], row["balance"]) for row in accounts},
    )


async def since(url: str, before: Mark) -> tuple[Ledger, Mark]:
    """Return what came after a mark, and the new mark."""
    connection = await asyncpg.connect(url, timeout=10)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            now = await _mark(connection)
            legs = [
                _leg(row)
                for partition in now.offsets
                for row in await connection.fetch(
                    _LEGS, partition, before.offsets.get(partition, 0)
                )
            ]
            rows = await connection.fetch(
                _ENTRIES,
                list(before.states),
                [state.seq for state in before.states.values()],
            )
    finally:
        await connection.close()
    return Ledger(legs, [_entry(row) for row in rows], before.states, now.states), now


def _leg(row: Any) -> Leg:
    return Leg(
        operation=row["operation_id"].hex,
        leg=row["leg"],
        kind=row["kind"],
        status=row["status"],
        account=row["account"],
        counterparty=row["counterparty"],
        user=row["user_id"].hex if row["user_id"] else "",
        amount=row["amount"],
        seq=row["seq"],
        balance=row["balance"],
        reason=row["reason"],
        needed=row["needed"],
        available=row["available"],
        partition=row["partition"],
        offset=row["log_offset"],
        reference=row["reference"] or "",
        held=row["held"] or 0,
        hold=row["hold"].hex if row["hold"] else "",
        held_change=row["held_change"] or 0,
        hold_left=row["hold_left"],
    )


def _entry(row: Any) -> Entry:
    return Entry(
        account=row["account"],
        seq=row["seq"],
        amount=row["amount"],
        balance_after=row["balance_after"],
        operation=row["operation_id"].hex,
        leg=row["leg"],
        partition=row["partition"],
        reference=row["reference"] or "",
    )
