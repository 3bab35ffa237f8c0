"""One batch: read its records, decide it inside the worker's transaction, commit."""

from collections.abc import Collection, Sequence

import msgspec

from microfin import wire
from microfin.decision import (
    Account,
    Decisions,
    Received,
    account_numbers,
    decide,
    leg_keys,
)
from microfin.routing import Routing
from microfin.store import Fenced, OutboxPlace, PartitionRow, Quarantined
from microfin.wire import Identity
from microfin_worker.account_memory import AccountMemory
from microfin_worker.edges import Record, Store, Transaction
from microfin_worker.fingerprint import fingerprint


class PlaceLost(Exception):
    """The partition's row is at another offset than this worker: its memory is worthless."""


class RoutingChanged(Exception):
    """The partition's row has another routing: the batch must be decided under that one."""

    def __init__(self, routing: Routing) -> None:
        super().__init__(f"routing is now {routing}")
        self.routing = routing


class Place(msgspec.Struct, frozen=True):
    """Where a worker works from: what it must find again in the partition's row."""

    partition: int
    epoch: int
    next_offset: int
    routing: Routing


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
    try:
        command = wire.decode(record.key, record.value)
    except wire.Undecodable as error:
        return Received(record.offset, record.time, None, error.reason, error.identity)
    if not condemned:
        return Received(record.offset, record.time, command)
    identity = Identity(
        command.operation, command.leg, command.account, command.kind, reply=command.reply
    )
    return Received(
        record.offset, record.time, None, "the database refuses what follows from it", identity
    )


async def commit_batch(
    store: Store,
    place: Place,
    memory: AccountMemory,
    records: Sequence[Record],
    batch: Sequence[Received],
    sent: Sequence[OutboxPlace],
) -> Decisions:
    """Decide `batch` from `place` and commit it; return what was decided.

    Raises `Fenced`, `PlaceLost` or `RoutingChanged` where the row is not as `place` says, and
    whatever the database raises: after any error it is unknown whether the commit took place.
    """
    async with store.transaction() as transaction:
        check(await transaction.lock(), place)
        known = await transaction.known_outcomes(leg_keys(batch))
        accounts = await _accounts(transaction, place, memory, batch)
        decisions = decide(place.partition, place.routing, accounts, known, batch)
        last = records[len(batch) - 1]
        await transaction.write(
            decisions,
            {
                number: accounts[number].version
                for number in decisions.accounts
                if number in accounts
            },
            _quarantined(decisions, records),
            sent,
            last.offset + 1,
            fingerprint(last),
        )
    return decisions


def check(row: PartitionRow, place: Place) -> None:
    """Compare the locked row with what this worker works from (rule 1 of its transaction)."""
    if row.epoch != place.epoch:
        raise Fenced(f"epoch {row.epoch} came after our {place.epoch}")
    if row.routing != place.routing:
        raise RoutingChanged(row.routing)
    if row.next_offset != place.next_offset:
        raise PlaceLost(f"the row is at {row.next_offset}, this worker at {place.next_offset}")


async def _accounts(
    transaction: Transaction, place: Place, memory: AccountMemory, batch: Sequence[Received]
) -> dict[str, Account]:
    numbers = account_numbers(batch, place.partition, place.routing)
    remembered, others = memory.recall(numbers)
    return remembered | await transaction.accounts(others)


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
