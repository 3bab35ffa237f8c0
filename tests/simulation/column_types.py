"""What the columns of the ledger refuse, written down from PostgreSQL's manual and revision 0001.

It shares nothing with `microfin.ledger.columns`, so that both must be wrong in the same way for a
test to pass. `test_simulated_shard.py` compares it with a real PostgreSQL.
"""

import re
from collections.abc import Iterator, Sequence

import asyncpg

from microfin.ledger.operation import Outcome
from microfin.ledger.records import Account, Decisions, Entry
from microfin_worker.ports import Quarantined

_UUID = re.compile(r"[0-9a-f]{32}")
_LAST_MOMENT = 9_223_372_036_854_000  # milliseconds; then an interval ends, and 30 years later time
_FIRST_MOMENT = -210_866_803_200_000  # and begins with 4713 BC
_KINDS = {"open", "deposit", "withdraw", "transfer", "set_state"}
_KINDS |= {"hold", "capture", "release", "expire"}
_LEGS = {"request", "credit", "refund"}


def refuse_unreadable(decisions: Decisions, quarantined: Sequence[Quarantined]) -> None:
    """Raise what PostgreSQL does where it cannot read the arguments of `write_batch`."""
    if any("\0" in text for text in _texts(decisions, quarantined)):
        raise asyncpg.CharacterNotInRepertoireError("U+0000 in a text")
    for outcome in decisions.outcomes:
        _uuid(outcome.operation)
    for outcome in decisions.outcomes:
        _uuid(outcome.user or None)
        _uuid(outcome.hold or None)
    for outcome in decisions.outcomes:
        _bigints(
            outcome.amount, outcome.seq, outcome.balance, outcome.counterparty_seq, outcome.needed,
            outcome.available, outcome.offset, outcome.time, outcome.held, outcome.held_change,
            outcome.hold_left, outcome.ends,
        )  # fmt: skip
    for entry in decisions.entries:
        _bigints(entry.seq, entry.amount, entry.balance_after, entry.time)
    for account in decisions.accounts.values():
        _bigints(
            account.balance, account.held, account.seq, account.version, account.entry_time
        )  # fmt: skip
    for hold in decisions.holds.values():
        _uuid(hold.operation)
        _bigints(hold.amount, hold.left, hold.ends)
    for number, time in decisions.opened.items():
        _uuid(decisions.accounts[number].owner)
        _bigints(time)
    _bigints(*decisions.contra.values())
    for record in quarantined:
        _bigints(record.offset, record.time)


def refuse_account(account: Account, opened: int | None) -> None:
    """Raise what PostgreSQL does where a row of `accounts` refuses the account."""
    _moment(account.entry_time)
    if opened is not None:
        _moment(opened)
    if account.balance < 0:
        raise _check("accounts_balance_check")
    if not 0 <= account.held <= account.balance:
        raise _check("accounts_held_check")
    if len(account.currency) != 3:
        raise _check("accounts_currency_check")


def refuse_outcome(outcome: Outcome) -> None:
    """Raise what PostgreSQL does where a row of `outcomes` refuses the outcome."""
    _moment(outcome.time)
    if outcome.ends is not None:
        _moment(outcome.ends)
    if outcome.amount is not None and outcome.amount <= 0:
        raise _check("outcomes_amount_check")
    if outcome.kind not in _KINDS:
        raise _check("outcomes_kind_check")
    if outcome.leg not in _LEGS:
        raise _check("outcomes_leg_check")
    if (outcome.status == "rejected") != (outcome.reason != ""):
        raise _check("outcomes_check")


def refuse_entry(entry: Entry) -> None:
    """Raise what PostgreSQL does where a row of `entries` refuses the entry."""
    _moment(entry.time)
    if entry.amount == 0:
        raise _check("entries_amount_check")
    if entry.balance_after < 0:
        raise _check("entries_balance_after_check")


def refuse_quarantined(record: Quarantined) -> None:
    """Raise what PostgreSQL does where a row of `quarantine` refuses the record."""
    _moment(record.time)


def refuse_misfits(decisions: Decisions, quarantined: Sequence[Quarantined] = ()) -> None:
    """Raise what PostgreSQL does where any of its tables refuses what was decided."""
    refuse_unreadable(decisions, quarantined)
    for account in decisions.accounts.values():
        refuse_account(account, decisions.opened.get(account.number))
    for outcome in decisions.outcomes:
        refuse_outcome(outcome)
    for entry in decisions.entries:
        refuse_entry(entry)
    for record in quarantined:
        refuse_quarantined(record)


def _texts(decisions: Decisions, quarantined: Sequence[Quarantined]) -> Iterator[str]:
    for outcome in decisions.outcomes:
        yield from (outcome.operation, outcome.user, outcome.account, outcome.counterparty)
        yield from (outcome.currency, outcome.reason, outcome.at_account, outcome.reference)
        for pair in (outcome.metadata or {}).items():
            yield from pair
    for entry in decisions.entries:
        yield from (entry.account, entry.operation, entry.counterparty, entry.reference)
    for account in decisions.accounts.values():
        yield from (account.number, account.owner, account.currency)
    for row in decisions.outbox:
        yield row.command.operation
    for hold in decisions.holds.values():
        yield from (hold.account, hold.receiver)
    for record in quarantined:
        yield record.reason


def _uuid(text: str | None) -> None:
    if text is not None and not _UUID.fullmatch(text):
        raise asyncpg.InvalidTextRepresentationError(f"no uuid: {text!r:.50}")


def _bigints(*numbers: int | None) -> None:
    for number in numbers:
        if number is not None and not -(2**63) <= number < 2**63:
            raise asyncpg.NumericValueOutOfRangeError(f"no bigint: {number!r:.50}")


def _moment(time: int) -> None:
    if not _FIRST_MOMENT <= time <= _LAST_MOMENT:
        raise asyncpg.DatetimeFieldOverflowError(f"no timestamptz: {time}")


def _check(constraint: str) -> asyncpg.CheckViolationError:
    error = asyncpg.CheckViolationError(constraint)
    error.constraint_name = constraint
    return error
