"""One batch: reading its records, deciding it, and committing it."""

import asyncio
import contextlib
from collections.abc import Collection, Sequence
from typing import Final

import msgspec

from microfin.ledger import wire
from microfin.ledger.columns import nearest_moment
from microfin.ledger.decision import Deciding, GenerationAhead, account_numbers, decide, leg_keys
from microfin.ledger.hold_rules import hold_ids
from microfin.ledger.records import Account, Decisions, Received
from microfin.ledger.routing import Routing
from microfin.ledger.wire import Identity
from microfin_worker.account_memory import AccountMemory
from microfin_worker.fingerprint import fingerprint
from microfin_worker.phases import BatchPhases
from microfin_worker.ports import (
    BatchWrite,
    Clock,
    Fenced,
    OutboxPlace,
    PartitionRow,
    Place,
    PlaceChanged,
    Quarantined,
    Record,
    Store,
    Transaction,
)

_YIELD_AFTER: Final = 50  # commands decided ahead, so that other tasks can run


class PlaceLost(Exception):
    """The partition's row is at another offset than this worker: its memory is wrong."""


class RoutingChanged(Exception):
    """The partition's row has another routing: the batch must be decided under that routing."""

    def __init__(self, routing: Routing) -> None:
        super().__init__(f"routing is now {routing}")
        self.routing = routing


class Batch(msgspec.Struct):
    """Records to be committed together.

    `decisions` is None until they are decided; `accounts` is what they were decided from. `writing`
    is set when the database begins to write the batch, or when the attempt is over: then is the
    time to decide the next batch.
    """

    records: Sequence[Record]
    received: list[Received]
    accounts: dict[str, Account]
    writing: asyncio.Event
    phases: BatchPhases
    decisions: Decisions | None = None


def read_batch(
    records: Sequence[Record], limit: int, condemned: Collection[int], clock: Clock
) -> Batch:
    """Return the first of `records`, at most `limit`, decoded but not decided."""
    phases = BatchPhases(clock)
    received = receive(records[:limit], condemned)
    return Batch(records[: len(received)], received, {}, asyncio.Event(), phases)


def receive(records: Sequence[Record], condemned: Collection[int]) -> list[Received]:
    """Return `records` decoded. `condemned` offsets go to quarantine, whatever they carry.

    Raises `wire.NewerVersion` if the first record has a version that this release does not read. If
    a later record has, the batch ends before it.
    """
    batch: list[Received] = []
    for record in records:
        try:
            batch.append(_receive(record, record.offset in condemned))
        except wire.NewerVersion:
            if not batch:
                raise
            break
    return batch


def _receive(record: Record, condemned: bool) -> Received:
    time = nearest_moment(record.time)
    try:
        command = wire.decode(record.key, record.value)
    except wire.Undecodable as error:
        return Received(record.offset, time, None, error.reason, error.identity)
    if not condemned:
        return Received(record.offset, time, command)
    identity = Identity(
        command.operation,
        command.leg,
        command.account,
        command.kind,
        command.user,
        command.reply,
    )
    return Received(
        record.offset, time, None, "the database refuses what follows from it", identity
    )


async def decide_ahead(
    batch: Batch, place: Place, memory: AccountMemory, before: Decisions | None, clock: Clock
) -> None:
    """Decide `batch` from memory alone, if memory holds every account that the batch touches.

    A decision ahead assumes that every leg is new, and that a number to be opened is free if memory
    does not hold it. If an assumption is wrong, the unique keys of outcomes and accounts refuse the
    commit. Two cases that the keys would not detect are left to the transaction. An `open` whose
    number is in use records no outcome here, so an `open` that may be a repeat, which finds its own
    account, is not decided ahead. Nor is a batch in which a number that was assumed to be free is
    not opened after all. A batch that takes from holds is not decided ahead either: memory has no
    holds.

    `before` are the decisions of the batch that is being committed meanwhile. This batch builds on
    them, and the caller discards it if that commit fails. It yields now and then, so that the
    database's answers to the other commit do not wait.
    """
    if hold_ids(batch.received):
        return
    opening = _numbers_to_open(batch.received)
    numbers = account_numbers(batch.received, place.partition, place.routing)
    accounts, others = memory.recall(numbers)
    if before is not None:
        changed = before.accounts
        accounts |= {number: changed[number] for number in numbers if number in changed}
        others = [number for number in others if number not in changed]
    if not opening.isdisjoint(accounts) or not opening.issuperset(others):
        return
    deciding = Deciding(place.partition, place.routing, accounts, {}, {})
    for count, received in enumerate(batch.received, start=1):
        try:
            deciding.decide(received)
        except GenerationAhead:
            return  # the partition's row may have that routing already: the transaction reads it
        if before is not None and count % _YIELD_AFTER == 0:
            await clock.sleep(0)
    if deciding.decisions.opened.keys() >= set(others):
        batch.accounts, batch.decisions = accounts, deciding.decisions
        batch.phases.decided()


def _numbers_to_open(batch: Sequence[Received]) -> set[str]:
    return {
        received.command.account
        for received in batch
        if received.command is not None and received.command.kind == "open"
    }


async def commit_batch(
    store: Store,
    place: Place,
    memory: AccountMemory,
    batch: Batch,
    sent: Sequence[OutboxPlace],
) -> Decisions:
    """Commit `batch` from `place`, and return its decisions. A batch that is undecided is decided.

    A batch that was decided ahead is committed by one statement, which checks that the row is at
    `place`. Raises `RepeatsFound` if an assumption of deciding ahead was wrong, and `Fenced`,
    `PlaceLost` or `RoutingChanged` if the row is not at `place`; then nothing was written. Raises
    the store's errors: except after `StaleAccounts` and `DataRefused`, it is unknown whether the
    commit succeeded.
    """
    if batch.decisions is not None:
        batch.writing.set()
        with contextlib.suppress(PlaceChanged):  # the transaction reads where the row is now
            await store.commit(place, _write_of(batch, batch.decisions, sent))
            return batch.decisions
    async with store.transaction() as transaction:
        check(await transaction.lock(), place)
        decisions = batch.decisions
        if decisions is None:
            decisions = await _decide_here(batch, place, memory, transaction)
            batch.decisions = decisions
            batch.phases.decided()
        batch.writing.set()
        await transaction.write(place, _write_of(batch, decisions, sent))
    return decisions


async def commit_nothing(
    store: Store, place: Place, fingerprint: bytes | None, sent: Sequence[OutboxPlace]
) -> None:
    """Show that the partition has an owner, and delete outbox rows that were `sent`.

    It is the commit of a batch without records, one statement where the row is still at `place`.
    Raises as `commit_batch` does.
    """
    write = BatchWrite(
        decisions=Decisions.none(),
        versions={},
        quarantined=(),
        sent=sent,
        next_offset=place.next_offset,
        fingerprint=fingerprint,
    )
    with contextlib.suppress(PlaceChanged):  # the transaction reads where the row is now
        await store.commit(place, write)
        return
    async with store.transaction() as transaction:
        check(await transaction.lock(), place)
        await transaction.write(place, write)


async def _decide_here(
    batch: Batch, place: Place, memory: AccountMemory, transaction: Transaction
) -> Decisions:
    """Decide under the transaction's lock, from memory and from what the transaction reads."""
    received = batch.received
    known = await transaction.known_outcomes(leg_keys(received))
    holds = await transaction.holds(hold_ids(received))
    numbers = account_numbers(received, place.partition, place.routing, holds)
    remembered, others = memory.recall(numbers)
    batch.accounts = remembered | await transaction.accounts(others)
    return decide(place.partition, place.routing, batch.accounts, known, received, holds)


def _write_of(batch: Batch, decisions: Decisions, sent: Sequence[OutboxPlace]) -> BatchWrite:
    last = batch.records[-1]
    return BatchWrite(
        decisions=decisions,
        versions={
            number: batch.accounts[number].version
            for number in decisions.accounts
            if number in batch.accounts
        },
        quarantined=_quarantined(decisions, batch.records),
        sent=sent,
        next_offset=last.offset + 1,
        fingerprint=fingerprint(last),
    )


def check(row: PartitionRow, place: Place) -> None:
    """Raise an error unless the locked row is at `place`."""
    if row.epoch != place.epoch:
        raise Fenced(f"epoch {row.epoch} came after our {place.epoch}")
    if row.routing != place.routing:
        raise RoutingChanged(row.routing)
    if row.next_offset != place.next_offset:
        raise PlaceLost(f"the row is at {row.next_offset}, this worker at {place.next_offset}")


def _quarantined(decisions: Decisions, records: Sequence[Record]) -> list[Quarantined]:
    if not decisions.quarantined:
        return []
    by_offset = {record.offset: record for record in records}
    return [
        Quarantined(
            received.offset,
            received.time,
            by_offset[received.offset].key,
            by_offset[received.offset].value,
            received.fault,
        )
        for received in decisions.quarantined
    ]
