"""The function `write_batch` of revision 0013, as the simulated shard carries it out."""

from collections.abc import Mapping, Sequence

import asyncpg
import msgspec

from microfin.ledger import wire
from microfin.ledger.operation import Outcome
from microfin.ledger.records import Decisions, Entry, LegKey
from microfin_worker.ports import BatchWrite, OutboxPlace, Place
from simulation.column_types import (
    refuse_account,
    refuse_entry,
    refuse_outcome,
    refuse_quarantined,
    refuse_unreadable,
)
from simulation.database import Database
from simulation.rows import account_row, unique_violation
from simulation.sessions import Execution, Row, Transaction


class PlacedWrite(msgspec.Struct, frozen=True):
    """Replaces the text of `microfin_worker.batch_statement.batch_statement`."""

    place: Place
    write: BatchWrite


class _PlaceChanged(asyncpg.PostgresError):  # type: ignore[misc]
    sqlstate = "MF001"


class _StaleAccounts(asyncpg.PostgresError):  # type: ignore[misc]
    sqlstate = "MF002"


def write_batch(
    database: Database, transaction: Transaction, place: Place, write: BatchWrite
) -> Execution:
    """Write a batch, if the partition's row is at `place` (revision 0013)."""
    decisions = write.decisions
    refuse_unreadable(decisions, write.quarantined)
    yield from _advance(database, transaction, place, write)
    transaction.batches.append((place, write))
    yield from _open_accounts(database, transaction, decisions)
    yield from _insert_outcomes(database, transaction, decisions.outcomes)
    yield from _insert_entries(database, transaction, place, decisions.entries)
    yield from _update_accounts(database, transaction, write)
    yield from _write_holds(database, transaction, decisions)
    _add_contra(database, transaction, place, decisions)
    _insert_outbox(database, transaction, place, decisions)
    _delete_sent(database, transaction, place, write.sent)
    for record in write.quarantined:
        refuse_quarantined(record)
        key = (place.partition, record.offset)
        if key in database.tables.quarantine:
            raise unique_violation("quarantine_pkey")
        transaction.put(database.tables.quarantine, key, {"reason": record.reason})


def is_at(row: Row, place: Place) -> bool:
    """Whether the partition's row is where a batch was decided from."""
    return (
        row["epoch"] == place.epoch
        and row["generation"] == place.routing.generation
        and row["partition_count"] == place.routing.partition_count
        and row["next_offset"] == place.next_offset
    )


def _advance(
    database: Database, transaction: Transaction, place: Place, write: BatchWrite
) -> Execution:
    rows = database.tables.partitions
    if place.partition in rows:
        yield ("partition", place.partition)
    row = rows.get(place.partition)
    if row is None or not is_at(row, place):
        raise _PlaceChanged("the partition is not where this batch was decided")
    advanced = row | {
        "next_offset": write.next_offset,
        "fingerprint": write.fingerprint,
        "touched_at": database.loop.time(),
    }
    transaction.put(rows, place.partition, advanced)


def _open_accounts(database: Database, transaction: Transaction, decisions: Decisions) -> Execution:
    for number in decisions.opened:
        yield ("account", number)
        if number in database.tables.accounts:
            raise unique_violation("accounts_pkey")
        account = decisions.accounts[number]
        refuse_account(account, decisions.opened[number])
        transaction.put(database.tables.accounts, number, account_row(account))


def decided_before(outcomes: Mapping[LegKey, Outcome], key: LegKey) -> bool:
    """Whether a leg was decided, in whichever volume: in the newest its key says so, in those
    before it a look-up."""
    return key in outcomes


def _insert_outcomes(
    database: Database, transaction: Transaction, outcomes: Sequence[Outcome]
) -> Execution:
    inserted = set()
    for outcome in outcomes:
        key = (outcome.operation, outcome.leg)
        yield ("outcome", key)
        refuse_outcome(outcome)
        if decided_before(database.tables.outcomes, key) or key in inserted:
            raise unique_violation("outcomes_pkey")
        inserted.add(key)
        transaction.put(database.tables.outcomes, key, outcome)


def _insert_entries(
    database: Database, transaction: Transaction, place: Place, entries: Sequence[Entry]
) -> Execution:
    inserted = set()
    for entry in entries:
        key = (entry.account, entry.seq)
        yield ("entry", key)
        refuse_entry(entry)
        if key in database.tables.entries or key in inserted:
            raise unique_violation("entries_pkey")
        inserted.add(key)
        transaction.put(database.tables.entries, key, entry)


def _update_accounts(database: Database, transaction: Transaction, write: BatchWrite) -> Execution:
    decisions, accounts = write.decisions, database.tables.accounts
    for number, account in decisions.accounts.items():
        if number in decisions.opened:
            continue
        if number in accounts:
            yield ("account", number)
        row = accounts.get(number)
        if row is None or row["version"] != write.versions[number]:
            raise _StaleAccounts("not all accounts are as remembered")
        refuse_account(account, None)
        transaction.put(accounts, number, account_row(account))


def _write_holds(database: Database, transaction: Transaction, decisions: Decisions) -> Execution:
    for hold in decisions.holds.values():
        yield ("hold", hold.operation)
        transaction.put(database.tables.holds, hold.operation, hold if hold.left else None)


def _add_contra(
    database: Database, transaction: Transaction, place: Place, decisions: Decisions
) -> None:
    balances = database.tables.contra
    for (contra, currency), change in decisions.contra.items():
        key = (place.partition, contra, currency)
        transaction.put(balances, key, balances.get(key, 0) + change)


def _insert_outbox(
    database: Database, transaction: Transaction, place: Place, decisions: Decisions
) -> None:
    for row in decisions.outbox:
        key = (place.partition, row.offset, row.step)
        if key in database.tables.outbox:
            raise unique_violation("outbox_pkey")
        transaction.put(database.tables.outbox, key, wire.encode(row.command))


def _delete_sent(
    database: Database, transaction: Transaction, place: Place, sent: Sequence[OutboxPlace]
) -> None:
    for offset, step in sent:
        transaction.put(database.tables.outbox, (place.partition, offset, step), None)
