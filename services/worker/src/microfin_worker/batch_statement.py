"""The statement that writes a decided batch: a call of the function `write_batch`.

Its arguments are arrays, one for each column, in the order of the function's parameters (migration
`0013_holds.py` of microfin-tools). Times are milliseconds since the Unix epoch.
"""

from collections.abc import Iterator, Sequence

import msgspec

from microfin.ledger import wire
from microfin.ledger.notes import Metadata
from microfin.ledger.operation import Contra, Outcome
from microfin.ledger.records import Account, Entry, Hold, OutboxRow
from microfin.postgres.literals import binaries, binary, integers, texts
from microfin_worker.ports import BatchWrite, Place, Quarantined


def batch_statement(place: Place, write: BatchWrite) -> str:
    """Return the statement that writes a batch which was decided from `place`."""
    return f"SELECT write_batch({','.join(_arguments(place, write))})"


def _arguments(place: Place, write: BatchWrite) -> Iterator[str]:
    decisions, opened = write.decisions, write.decisions.opened
    accounts = decisions.accounts.values()
    yield from _place(place, write)
    yield from _outcomes(decisions.outcomes)
    yield from _entries(decisions.entries)
    changed = [account for account in accounts if account.number not in opened]
    yield from _accounts(changed)
    yield integers([write.versions[account.number] for account in changed])
    yield _held(changed)
    made = [decisions.accounts[number] for number in opened]
    yield from _opened(made)
    yield integers(list(opened.values()))
    yield _held(made)
    yield from _contra(decisions.contra)
    yield from _outbox(decisions.outbox)
    yield integers([offset for offset, _ in write.sent])
    yield integers([step for _, step in write.sent])
    yield from _holds(list(decisions.holds.values()))
    yield from _quarantined(write.quarantined)


def _place(place: Place, write: BatchWrite) -> Iterator[str]:
    yield str(place.partition)
    yield str(place.epoch)
    yield str(place.routing.generation)
    yield str(place.routing.partition_count)
    yield str(place.next_offset)
    yield str(write.next_offset)
    yield binary(write.fingerprint)


def _outcomes(outcomes: Sequence[Outcome]) -> Iterator[str]:
    yield texts([outcome.operation for outcome in outcomes])
    yield texts([outcome.leg for outcome in outcomes])
    yield texts([outcome.kind for outcome in outcomes])
    yield texts([outcome.status for outcome in outcomes])
    yield texts([outcome.account for outcome in outcomes])
    yield texts([outcome.counterparty for outcome in outcomes])
    yield texts([outcome.user or None for outcome in outcomes])
    yield integers([outcome.amount for outcome in outcomes])
    yield texts([outcome.currency for outcome in outcomes])
    yield integers([outcome.seq for outcome in outcomes])
    yield integers([outcome.balance for outcome in outcomes])
    yield integers([outcome.counterparty_seq for outcome in outcomes])
    yield texts([outcome.reason for outcome in outcomes])
    yield texts([outcome.at_account for outcome in outcomes])
    yield integers([outcome.needed for outcome in outcomes])
    yield integers([outcome.available for outcome in outcomes])
    yield binaries([outcome.body_hash for outcome in outcomes])
    yield integers([outcome.offset for outcome in outcomes])
    yield integers([outcome.time for outcome in outcomes])
    yield _few([outcome.reference for outcome in outcomes])
    yield _few([_json(outcome.metadata) for outcome in outcomes])
    yield _numbers([outcome.held or None for outcome in outcomes])
    yield _few([outcome.hold for outcome in outcomes])
    yield _numbers([outcome.held_change or None for outcome in outcomes])
    yield _numbers([outcome.hold_left for outcome in outcomes])
    yield _numbers([outcome.ends for outcome in outcomes])


def _entries(entries: Sequence[Entry]) -> Iterator[str]:
    yield texts([entry.account for entry in entries])
    yield integers([entry.seq for entry in entries])
    yield integers([entry.amount for entry in entries])
    yield integers([entry.balance_after for entry in entries])
    yield texts([entry.operation for entry in entries])
    yield texts([entry.leg for entry in entries])
    yield texts([entry.kind for entry in entries])
    yield texts([entry.contra for entry in entries])
    yield texts([entry.counterparty for entry in entries])
    yield integers([entry.time for entry in entries])
    yield _few([entry.reference for entry in entries])


def _few(column: Sequence[str]) -> str:
    """Return texts of which most are empty, which is null in the table.

    Where there is none at all, the array is empty, and the function fills it up with nulls.
    """
    return texts([text or None for text in column]) if any(column) else texts([])


def _numbers(column: Sequence[int | None]) -> str:
    """Return numbers of which most are null; as `_few`."""
    return integers([] if all(it is None for it in column) else column)


def _held(accounts: Sequence[Account]) -> str:
    return _numbers([account.held or None for account in accounts])


def _json(metadata: Metadata | None) -> str:
    return "" if metadata is None else msgspec.json.encode(metadata).decode()


def _accounts(accounts: Sequence[Account]) -> Iterator[str]:
    yield texts([account.number for account in accounts])
    yield integers([account.balance for account in accounts])
    yield texts([account.state for account in accounts])
    yield integers([account.seq for account in accounts])
    yield integers([account.version for account in accounts])
    yield integers([account.entry_time for account in accounts])


def _opened(accounts: Sequence[Account]) -> Iterator[str]:
    yield texts([account.owner for account in accounts])
    yield texts([account.currency for account in accounts])
    yield from _accounts(accounts)


def _contra(changes: dict[tuple[Contra, str], int]) -> Iterator[str]:
    yield texts([contra for contra, _ in changes])
    yield texts([currency for _, currency in changes])
    yield integers(list(changes.values()))


def _outbox(rows: Sequence[OutboxRow]) -> Iterator[str]:
    yield integers([row.offset for row in rows])
    yield integers([row.step for row in rows])
    yield texts([row.command.operation for row in rows])
    yield binaries([wire.encode(row.command) for row in rows])


def _holds(holds: Sequence[Hold]) -> Iterator[str]:
    yield texts([hold.operation for hold in holds])
    yield texts([hold.account for hold in holds])
    yield texts([hold.receiver for hold in holds])
    yield integers([hold.amount for hold in holds])
    yield integers([hold.left for hold in holds])
    yield integers([hold.ends for hold in holds])


def _quarantined(records: Sequence[Quarantined]) -> Iterator[str]:
    yield integers([record.offset for record in records])
    yield integers([record.time for record in records])
    yield binaries([record.key for record in records])
    yield binaries([record.value for record in records])
    yield texts([record.reason for record in records])
