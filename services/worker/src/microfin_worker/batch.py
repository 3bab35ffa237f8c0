"""One batch: read its records, decide it inside the worker's transaction, commit."""

import asyncio
import contextlib
from collections.abc import Collection, Sequence
from typing import Final

import msgspec

from microfin.ledger import wire
from microfin.ledger.columns import nearest_moment
from microfin.ledger.decision import (
    Account,
    Deciding,
    Decisions,
    GenerationAhead,
    Received,
    account_numbers,
    decide,
    leg_keys,
)
from microfin.ledger.routing import Routing
from microfin.ledger.wire import Identity
from microfin_worker.account_memory import AccountMemory
from microfin_worker.batch_statement import BatchWrite, OutboxPlace, Place, Quarantined
from microfin_worker.edges import Clock, Record, Store, Transaction
from microfin_worker.fingerprint import fingerprint
from microfin_worker.phases import BatchPhases
from microfin_worker.postgres_store import Fenced, PartitionRow, PlaceChanged

_STEP_ASIDE: Final = 50  # commands decided ahead between two steps aside


class PlaceLost(Exception):
    """The partition's row is at another offset than this worker: its memory is worthless."""


class RoutingChanged(Exception):
    """The partition's row has another routing: the batch must be decided under that one."""

    def __init__(self, routing: Routing) -> None:
        super().__init__(f"routing is now {routing}")
        self.routing = routing


class Batch(msgspec.Struct):
    """Records to be committed together.

    `decisions` is None until they are decided, `accounts` what they were decided from. `writing` is
    set once the database has the most of its work ahead, or none: the time to decide ahead.
    """

    records: Sequence[Record]
    received: list[Received]
    accounts: dict[str, Account]
    writing: asyncio.Event
    phases: BatchPhases
    decisions: Decisions | None = None


def gather(
    records: Sequence[Record], limit: int, condemned: Collection[int], clock: Clock
) -> Batch:
    """Return the first of `records`, at most `limit`, decoded but not decided."""
    phases = BatchPhases(clock)
    received = receive(records[:limit], condemned)
    return Batch(records[: len(received)], received, {}, asyncio.Event(), phases)


def receive(records: Sequence[Record], condemned: Collection[int]) -> list[Received]:
    """Return `records` decoded. `condemned` offsets go to quarantine whatever they carry.

    Raises `wire.NewerVersion` where the first record is of a version that we do not know; where a
    later one is, the batch ends before it.
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
    """Decide `batch` from memory alone, if that holds every account it touches.

    What is decided ahead takes every leg for new, and every number that is to be opened for free
    where memory does not hold it. The unique keys of outcomes and accounts say otherwise. What they
    cannot say is never assumed: an `open` of a number that is taken leaves no outcome here, so a
    repeated `open` that finds its own account is not decided ahead; and a number that turns out not
    to be opened is not taken for free.

    `before` are the decisions of the batch that is being committed meanwhile: this one counts on
    them, and its caller throws it away should that commit fail. Now and then it steps aside, so
    that the other commit's answers from the database do not wait.
    """
    opening = _numbers_to_open(batch.received)
    numbers = account_numbers(batch.received, place.partition, place.routing)
    accounts, others = memory.recall(numbers)
    if before is not None:
        changed = before.accounts
        accounts |= {number: changed[number] for number in numbers if number in changed}
        others = [number for number in others if number not in changed]
    if not opening.isdisjoint(accounts) or not opening.issuperset(others):
        return
    deciding = Deciding(place.partition, place.routing, accounts, {})
    for count, received in enumerate(batch.received, start=1):
        try:
            deciding.take(received)
        except GenerationAhead:
            return  # the partition's row may have that routing already; its lock will tell
        if before is not None and count % _STEP_ASIDE == 0:
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
    """Commit `batch` from `place`, decided now if it is not yet; return its decisions.

    What was decided ahead is committed by one statement, which finds out by itself whether the row
    is as `place` says. Raises `RepeatsFound` where what it was decided from was not so: nothing is
    written then. Raises `Fenced`, `PlaceLost` or `RoutingChanged` where the row is not as `place`
    says, and whatever the database raises: after any other error it is unknown whether the commit
    took place.
    """
    if batch.decisions is not None:
        batch.writing.set()
        with contextlib.suppress(PlaceChanged):  # what it is now, the lock tells
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


async def _decide_here(
    batch: Batch, place: Place, memory: AccountMemory, transaction: Transaction
) -> Decisions:
    """Decide from memory and from what the transaction reads, under its lock."""
    known = await transaction.known_outcomes(leg_keys(batch.received))
    numbers = account_numbers(batch.received, place.partition, place.routing)
    remembered, others = memory.recall(numbers)
    batch.accounts = remembered | await transaction.accounts(others)
    return decide(place.partition, place.routing, batch.accounts, known, batch.received)


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
    """Compare the locked row with what this worker works from (rule 1 of its transaction)."""
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
