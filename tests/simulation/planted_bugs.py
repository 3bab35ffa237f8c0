"""Bugs that the simulation must find, each a small change of the product.

Where the rule is in SQL, its meaning in `batch_writing` is changed instead.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from unittest.mock import patch

import msgspec
from msgspec.structs import replace

import microfin_worker.batch
import microfin_worker.tenure
from microfin.ledger import wire
from microfin.ledger.decision import Deciding
from microfin.ledger.effects import Rejection
from microfin.ledger.operation import Outcome
from microfin.ledger.records import Account, LegKey, OutboxRow
from microfin_api.commands.sending_gate import Destination
from microfin_api.commands.submission import Submission
from microfin_api.commands.waiting import Waiter
from microfin_tools.growth import MarkedLog, PostgresRouting
from microfin_worker import postgres_store
from microfin_worker.batch import Batch, PlaceLost, RoutingChanged
from microfin_worker.outbox import Outbox
from microfin_worker.ports import BatchWrite, Claim, Fenced, PartitionRow, Place, StoreUnavailable
from microfin_worker.postgres_store import PostgresStore
from microfin_worker.tenure import Tenure
from simulation import batch_writing, routing_statements
from simulation.database import Database
from simulation.sessions import Execution, Row, Transaction

Change = tuple[Any, str, Any]
"""An object, the name of one of its attributes, and what that is to be instead."""


class PlantedBug(msgspec.Struct, frozen=True):
    """A bug, the invariants of which it breaks one, and the changes that make it."""

    name: str
    invariants: tuple[int, ...]
    changes: list[Change]

    @contextlib.contextmanager
    def planted(self) -> Iterator[None]:
        """Have the bug for a while."""
        with contextlib.ExitStack() as stack:
            for owner, name, instead in self.changes:
                stack.enter_context(patch.object(owner, name, instead))
            yield


def _check_without_epoch(row: PartitionRow, place: Place) -> None:
    _check_routing(row, place)
    if row.next_offset != place.next_offset:
        raise PlaceLost("another offset")


def _check_without_offset(row: PartitionRow, place: Place) -> None:
    if row.epoch != place.epoch:
        raise Fenced("another epoch")
    _check_routing(row, place)


def _check_routing(row: PartitionRow, place: Place) -> None:
    if row.routing != place.routing:
        raise RoutingChanged(row.routing)


def _is_at_but_for(*columns: str) -> Callable[[Row, Place], bool]:
    def is_at(row: Row, place: Place) -> bool:
        found = {
            "epoch": row["epoch"] == place.epoch,
            "generation": row["generation"] == place.routing.generation,
            "partition_count": row["partition_count"] == place.routing.partition_count,
            "next_offset": row["next_offset"] == place.next_offset,
        }
        return all(is_so for column, is_so in found.items() if column not in columns)

    return is_at


async def _commit_believing(
    own_store: Any, place: Place, memory: Any, batch: Batch, sent: Any
) -> Any:
    """Treat a commit whose answer was lost as done."""
    try:
        return await microfin_worker.batch.commit_batch(own_store, place, memory, batch, sent)
    except StoreUnavailable:
        if batch.decisions is not None:
            return batch.decisions
        raise


def _decided_in_the_newest_volume(outcomes: Mapping[LegKey, Outcome], key: LegKey) -> bool:
    """Look only into a volume of the last four outcomes."""
    return key in list(outcomes)[-4:]


def _advance_by_itself(
    database: Database, transaction: Transaction, place: Place, write: BatchWrite
) -> Execution:
    """Let the offset count, even if the batch fails."""
    yield from _ADVANCE(database, transaction, place, write)
    table, key, row = transaction.changes.pop()
    table[key] = row


_ADVANCE = batch_writing._advance


async def _claim_with_one_snapshot(self: PostgresStore, held: int | None = None) -> Claim:
    """Read the outbox by the snapshot of the statement that then waits for the row."""
    async with self._pool.acquire() as connection, connection.transaction():
        rows = await connection.fetch(postgres_store._OUTBOX, self.partition)
    claim = await _CLAIM(self, held)
    outbox = [
        OutboxRow(
            row["log_offset"],
            row["step"],
            msgspec.json.decode(row["command"], type=wire.Command),
        )
        for row in rows
    ]
    return Claim(claim.row, outbox)


_CLAIM = PostgresStore.claim


def _add_as_acknowledged(self: Outbox, rows: Any) -> None:
    rows = list(rows)
    _ADD(self, rows)
    self._acknowledged.extend((row.offset, row.step) for row in rows)


_ADD = Outbox.add


def _reject_and_forget(self: Deciding, command: wire.Command, rejection: Any) -> None:
    if command.leg != "credit":
        _REJECT(self, command, rejection)


_REJECT = Deciding._reject


async def _check_first_and_append_then(
    self: Submission, waiter: Waiter, destination: Destination
) -> None:
    await self._gate.until_order_is_certain(waiter.command.account, destination.generation)
    await asyncio.shield(waiter.appended)


def _adopt_and_remember(self: Tenure, change: RoutingChanged) -> None:
    remembered = dict(self._memory._accounts)
    _ADOPT(self, change)
    self._memory.remember(remembered)


_ADOPT = Tenure._adopt_routing


async def _recheck_nothing(*_: Any) -> None:
    return


async def _cut_at_the_ends(self: MarkedLog, partitions: Any, *_: Any) -> dict[int, int]:
    """Ask a broker instead of appending."""
    ends = await self.ends()
    return {partition: ends[partition] for partition in partitions}


def _write_without_forwarded(batch: Batch, decisions: Any, sent: Any) -> BatchWrite:
    """Leave out of the outbox what is only passed on: it is sent from memory, is it not?"""
    write = _WRITE_OF(batch, decisions, sent)
    outbox = [row for row in decisions.outbox if not row.command.appended]
    return replace(write, decisions=replace(decisions, outbox=outbox))


_WRITE_OF = microfin_worker.batch._write_of


def _record_unknown(self: Deciding, command: wire.Command, outcome: Any) -> None:
    """Hide this outcome from the rest of the batch."""
    key = (outcome.operation, outcome.leg)
    outcomes = self.decisions.outcomes
    outcomes[:] = [it for it in outcomes if (it.operation, it.leg) != key]
    outcomes.append(outcome)
    self._answer(command, outcome, replayed=False)


def _send_without_reference(self: Deciding, command: wire.Command) -> None:
    """Let money travel alone."""
    _SEND(self, replace(command, reference=""))


_SEND = Deciding._send


def _let_what_is_held_be_spent(account: Account, amount: int) -> None:
    if amount > account.balance:
        raise Rejection("insufficient_funds", account.number, amount, account.balance)


def _decide_ahead_without_holds(batch: Any) -> list[str]:
    return []


BUGS = [
    PlantedBug(
        "no epoch check",
        (6,),
        [
            (microfin_worker.batch, "check", _check_without_epoch),
            (batch_writing, "is_at", _is_at_but_for("epoch")),
        ],
    ),
    PlantedBug(
        "no offset check after an ambiguous commit",
        (4, 5, 7),  # what was answered and not committed is missing, or is decided anew
        [
            (microfin_worker.tenure, "commit_batch", _commit_believing),
            (microfin_worker.batch, "check", _check_without_offset),
            (batch_writing, "is_at", _is_at_but_for("next_offset")),
        ],
    ),
    PlantedBug(
        "volumes before the newest are not looked into",
        (4,),
        [(batch_writing, "decided_before", _decided_in_the_newest_volume)],
    ),
    PlantedBug(
        "offset committed outside the transaction",
        (5,),
        [(batch_writing, "_advance", _advance_by_itself)],
    ),
    PlantedBug(
        "outbox read in the claim's snapshot",
        (8,),
        [(PostgresStore, "claim", _claim_with_one_snapshot)],
    ),
    PlantedBug(
        "outbox deleted before the acknowledgement",
        (5, 8),
        [(Outbox, "add", _add_as_acknowledged)],
    ),
    PlantedBug(
        "refused credit not remembered",
        (8,),
        [(Deciding, "_reject", _reject_and_forget)],
    ),
    PlantedBug(
        "202 checked against a routing read from before the acknowledgement",
        (7,),
        [(Submission, "_accept", _check_first_and_append_then)],
    ),
    PlantedBug(
        "accounts kept in memory across a generation change",
        (7,),
        [(Tenure, "_adopt_routing", _adopt_and_remember)],
    ),
    PlantedBug(
        "activation without rechecking token and cuts",
        (6, 7),
        [
            (PostgresRouting, "_recheck", staticmethod(_recheck_nothing)),
            (routing_statements, "intent_is_stale", lambda *_: False),
        ],
    ),
    PlantedBug(
        "cut where a broker says that the log ends",
        (7,),
        [(MarkedLog, "mark", _cut_at_the_ends)],
    ),
    PlantedBug(
        "forward without the outbox",
        (5, 8),
        [(microfin_worker.batch, "_write_of", _write_without_forwarded)],
    ),
    PlantedBug(
        "a reference stays with the sender",
        (12,),
        [(Deciding, "_send", _send_without_reference)],
    ),
    PlantedBug(
        "what is held is spent",
        (7, 13),
        [(Deciding, "_check_funds", staticmethod(_let_what_is_held_be_spent))],
    ),
    PlantedBug(
        "a capture is decided ahead, without its hold",
        (7,),
        [(microfin_worker.batch, "hold_ids", _decide_ahead_without_holds)],
    ),
    PlantedBug(
        "repeat inside one batch",
        (4,),
        [(Deciding, "_record", _record_unknown)],
    ),
]
"""All of them."""
