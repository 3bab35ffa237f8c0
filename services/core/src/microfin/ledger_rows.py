"""Rows of the ledger's tables: from what was read, and to what is written.

Times are milliseconds since the Unix epoch here, and `timestamptz` in the tables.
"""

from collections.abc import Sequence
from typing import Any, Final

from microfin import wire
from microfin.decision import Account, Entry, OutboxRow
from microfin.operation import Contra, Outcome

MILLISECONDS: Final = "(extract(epoch FROM {column}) * 1000)::bigint"
"""SQL for a time of the tables in milliseconds since the Unix epoch."""

OUTCOME_COLUMNS: Final = f"""
operation_id, leg, kind, status, account, counterparty, user_id, amount, currency, seq, balance,
counterparty_seq, reason, at_account, needed, available, body_hash, log_offset,
{MILLISECONDS.format(column="at")} AS time
"""
"""What `outcome_of` needs of a row of `outcomes`."""


def account_of(row: Any) -> Account:
    """Return the account in a row of `accounts` with its times in milliseconds."""
    return Account(
        number=row["number"],
        owner=row["owner"].hex,
        currency=row["currency"],
        balance=row["balance"],
        state=row["state"],
        seq=row["seq"],
        version=row["version"],
        entry_time=row["entry_time"],
    )


def outcome_of(row: Any) -> Outcome:
    """Return the outcome in a row that has `OUTCOME_COLUMNS`."""
    return Outcome(
        operation=row["operation_id"].hex,
        leg=row["leg"],
        kind=row["kind"],
        status=row["status"],
        account=row["account"],
        body_hash=row["body_hash"],
        offset=row["log_offset"],
        time=row["time"],
        user=row["user_id"].hex if row["user_id"] else "",
        counterparty=row["counterparty"],
        amount=row["amount"],
        currency=row["currency"],
        seq=row["seq"],
        balance=row["balance"],
        counterparty_seq=row["counterparty_seq"],
        reason=row["reason"],
        at_account=row["at_account"],
        needed=row["needed"],
        available=row["available"],
    )


def outcome_columns(outcomes: Sequence[Outcome]) -> list[list[Any]]:
    """Return the parameters of the outcomes in the store's writing statement, a column each."""
    return [
        [outcome.operation for outcome in outcomes],
        [outcome.leg for outcome in outcomes],
        [outcome.kind for outcome in outcomes],
        [outcome.status for outcome in outcomes],
        [outcome.account for outcome in outcomes],
        [outcome.counterparty for outcome in outcomes],
        [outcome.user or None for outcome in outcomes],
        [outcome.amount for outcome in outcomes],
        [outcome.currency for outcome in outcomes],
        [outcome.seq for outcome in outcomes],
        [outcome.balance for outcome in outcomes],
        [outcome.counterparty_seq for outcome in outcomes],
        [outcome.reason for outcome in outcomes],
        [outcome.at_account for outcome in outcomes],
        [outcome.needed for outcome in outcomes],
        [outcome.available for outcome in outcomes],
        [outcome.body_hash for outcome in outcomes],
        [outcome.offset for outcome in outcomes],
        [outcome.time for outcome in outcomes],
    ]


def entry_columns(entries: Sequence[Entry]) -> list[list[Any]]:
    """Return the parameters of the entries, a column each."""
    return [
        [entry.account for entry in entries],
        [entry.seq for entry in entries],
        [entry.amount for entry in entries],
        [entry.balance_after for entry in entries],
        [entry.operation for entry in entries],
        [entry.leg for entry in entries],
        [entry.kind for entry in entries],
        [entry.contra for entry in entries],
        [entry.counterparty for entry in entries],
        [entry.time for entry in entries],
    ]


def account_columns(changed: Sequence[Account], versions: dict[str, int]) -> list[list[Any]]:
    """Return the parameters of the changed accounts, a column each; their earlier versions last."""
    return [
        [account.number for account in changed],
        [account.balance for account in changed],
        [account.state for account in changed],
        [account.seq for account in changed],
        [account.version for account in changed],
        [account.entry_time for account in changed],
        [versions[account.number] for account in changed],
    ]


def contra_columns(changes: dict[tuple[Contra, str], int]) -> list[list[Any]]:
    """Return the parameters of the changes of contra balances, a column each."""
    return [
        [contra for contra, _ in changes],
        [currency for _, currency in changes],
        list(changes.values()),
    ]


def outbox_columns(rows: Sequence[OutboxRow]) -> list[list[Any]]:
    """Return the parameters of the outbox rows, a column each."""
    return [
        [row.offset for row in rows],
        [row.step for row in rows],
        [row.command.operation for row in rows],
        [wire.encode(row.command) for row in rows],
    ]
