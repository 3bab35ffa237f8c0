"""Rows and errors in the form in which asyncpg gives them."""

import asyncpg
import msgspec

from microfin.ledger.operation import Outcome
from microfin.ledger.records import Account, Hold
from simulation.sessions import Row


class Identifier(str):
    """A uuid as asyncpg returns it, as far as it is used."""

    __slots__ = ()

    @property
    def hex(self) -> str:
        """The 32 hexadecimal digits."""
        return str(self)


def account_row(account: Account) -> Row:
    """Return an account as its table's row."""
    return {
        "number": account.number,
        "owner": Identifier(account.owner),
        "currency": account.currency,
        "balance": account.balance,
        "held": account.held,
        "state": account.state,
        "seq": account.seq,
        "version": account.version,
        "entry_time": account.entry_time,
    }


def outcome_row(outcome: Outcome) -> Row:
    """Return an outcome as a row of its table."""
    row = msgspec.structs.asdict(outcome)
    row["operation_id"] = Identifier(outcome.operation)
    row["user_id"] = Identifier(outcome.user) if outcome.user else None
    row["log_offset"] = outcome.offset
    row["hold"] = Identifier(outcome.hold) if outcome.hold else None
    row["reference"] = outcome.reference or None
    row["metadata"] = msgspec.json.encode(outcome.metadata).decode() if outcome.metadata else None
    return row


def hold_row(hold: Hold) -> Row:
    """Return a hold as its table's row."""
    return {
        "operation_id": Identifier(hold.operation),
        "account": hold.account,
        "receiver": hold.receiver,
        "amount": hold.amount,
        "amount_left": hold.left,
        "ends": hold.ends,
    }


def unique_violation(constraint: str) -> asyncpg.UniqueViolationError:
    """Return the error of a key that is there already."""
    error = asyncpg.UniqueViolationError(f"duplicate key: {constraint}")
    error.constraint_name = constraint
    return error
