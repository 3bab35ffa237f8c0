"""The accounts that exist when a schedule begins, each with one entry that explains its balance."""

from collections.abc import Sequence

from microfin.ledger.records import Account, Entry
from simulation.database import Database
from simulation.effects import partition_of
from simulation.plan import Plan
from simulation.rows import account_row


def give_balances(plan: Plan, databases: Sequence[Database]) -> None:
    """Write the plan's accounts into the shards' tables."""
    for planned in plan.accounts:
        if planned.opened_by:
            continue
        tables = databases[partition_of(planned.number, plan.shards)].tables
        has = planned.balance > 0
        account = Account(
            number=planned.number,
            owner=planned.user,
            currency=planned.currency,
            balance=planned.balance,
            seq=int(has),
            version=1 + int(has),
            entry_time=1,
        )
        tables.accounts[planned.number] = account_row(account)
        if not has:
            continue
        tables.entries[(planned.number, 1)] = Entry(
            planned.number, 1, planned.balance, planned.balance, "before", "request", "deposit",
            "cash", "", 1,
        )  # fmt: skip
        key = (partition_of(planned.number, plan.partitions), "cash", planned.currency)
        tables.contra[key] = tables.contra.get(key, 0) - planned.balance
