"""Rows of the ledger's tables, converted to the ledger's types.

Times are milliseconds since the Unix epoch in these types, and `timestamptz` in the tables.
"""

from typing import Any, Final

import msgspec

from microfin.ledger.notes import Metadata
from microfin.ledger.operation import Outcome
from microfin.ledger.records import Account, Hold

MILLISECONDS: Final = "(extract(epoch FROM {column}) * 1000)::bigint"
"""SQL for a table's time in milliseconds since the Unix epoch."""

OUTCOME_COLUMNS: Final = f"""
operation_id, leg, kind, status, account, counterparty, user_id, amount, currency, seq, balance,
counterparty_seq, reason, at_account, needed, available, body_hash, log_offset, reference, metadata,
held, hold, held_change, hold_left, {MILLISECONDS.format(column="ends_at")} AS ends,
{MILLISECONDS.format(column="at")} AS time
"""
"""The columns of `outcomes` that `outcome_of` needs."""


HOLD_COLUMNS: Final = f"""
operation_id, account, receiver, amount, amount_left,
{MILLISECONDS.format(column="ends_at")} AS ends
"""
"""The columns of `holds` that `hold_of` needs."""


def account_of(row: Any) -> Account:
    """Return the account in a row of `accounts` whose times are in milliseconds."""
    return Account(
        number=row["number"],
        owner=row["owner"].hex,
        currency=row["currency"],
        balance=row["balance"],
        state=row["state"],
        seq=row["seq"],
        version=row["version"],
        entry_time=row["entry_time"],
        held=row["held"],
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
        reference=row["reference"] or "",
        metadata=metadata_of(row["metadata"]),
        held=row["held"] or 0,
        hold=row["hold"].hex if row["hold"] else "",
        held_change=row["held_change"] or 0,
        hold_left=row["hold_left"],
        ends=row["ends"],
    )


def hold_of(row: Any) -> Hold:
    """Return the hold in a row that has `HOLD_COLUMNS`."""
    return Hold(
        operation=row["operation_id"].hex,
        account=row["account"],
        receiver=row["receiver"],
        amount=row["amount"],
        left=row["amount_left"],
        ends=row["ends"],
    )


def metadata_of(stored: str | None) -> Metadata | None:
    """Return the pairs in a `jsonb` column, as the driver gives it."""
    return None if stored is None else msgspec.json.decode(stored, type=Metadata)
