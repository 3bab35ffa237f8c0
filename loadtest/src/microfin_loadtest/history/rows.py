"""The rows of a history as the text that PostgreSQL's COPY reads: a line for each row.

Formatting a whole line costs a fraction of what a driver takes that encodes value by value. Nothing
needs an escape: a history's texts are numbers, ids and words of ours.
"""

import time
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Final

from microfin.ledger.operation import Outcome
from microfin.ledger.records import Account, Entry

OUTCOMES: Final = (
    "operation_id",
    "leg",
    "kind",
    "status",
    "account",
    "counterparty",
    "user_id",
    "amount",
    "currency",
    "seq",
    "balance",
    "counterparty_seq",
    "reason",
    "at_account",
    "needed",
    "available",
    "body_hash",
    "partition",
    "log_offset",
    "at",
    "volume",
)
ENTRIES: Final = (
    "account",
    "seq",
    "amount",
    "balance_after",
    "operation_id",
    "leg",
    "kind",
    "contra",
    "counterparty",
    "partition",
    "at",
    "volume",
)
ACCOUNTS: Final = (
    "number",
    "owner",
    "currency",
    "balance",
    "state",
    "seq",
    "version",
    "entry_time",
    "opened_at",
)

_NULL: Final = r"\N"


def outcome_lines(volume: int, partition: int, outcomes: Iterable[Outcome]) -> Iterator[str]:
    """Yield the lines of a partition's outcomes, in the order of `OUTCOMES`."""
    for it in outcomes:
        yield (
            f"{it.operation}\t{it.leg}\t{it.kind}\t{it.status}\t{it.account}\t{it.counterparty}\t"
            f"{it.user or _NULL}\t{_number(it.amount)}\t{it.currency}\t{_number(it.seq)}\t"
            f"{_number(it.balance)}\t{_number(it.counterparty_seq)}\t{it.reason}\t{it.at_account}\t"
            f"{_number(it.needed)}\t{_number(it.available)}\t\\\\x{it.body_hash.hex()}\t"
            f"{partition}\t{it.offset}\t{_moment(it.time)}\t{volume}\n"
        )


def entry_lines(volume: int, partition: int, entries: Iterable[Entry]) -> Iterator[str]:
    """Yield the lines of a partition's entries, in the order of `ENTRIES`."""
    for it in entries:
        yield (
            f"{it.account}\t{it.seq}\t{it.amount}\t{it.balance_after}\t{it.operation}\t{it.leg}\t"
            f"{it.kind}\t{it.contra}\t{it.counterparty}\t{partition}\t{_moment(it.time)}\t"
            f"{volume}\n"
        )


def account_lines(accounts: Iterable[Account], opened: Mapping[str, int]) -> Iterator[str]:
    """Yield the lines of accounts, in the order of `ACCOUNTS`."""
    for it in accounts:
        yield (
            f"{it.number}\t{it.owner}\t{it.currency}\t{it.balance}\t{it.state}\t{it.seq}\t"
            f"{it.version}\t{_moment(it.entry_time)}\t{_moment(opened[it.number])}\n"
        )


def _number(value: int | None) -> int | str:
    return _NULL if value is None else value


def _moment(milliseconds: int) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    return f"{_second(seconds)}.{rest:03d}+00"


@lru_cache(maxsize=8)  # Rows come in the order of time.
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds))
