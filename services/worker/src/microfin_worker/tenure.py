"""One claim of the partition, and the batches that are committed under it.

All that a worker remembers of its partition belongs to its tenure. When it is unknown whether a
commit succeeded, the worker drops the tenure: it forgets everything and claims anew, and never
guesses. When the database refuses a batch for its data, nothing was committed and the tenure
continues: the batch is narrowed down to the record at fault, which goes to quarantine.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec
import structlog

from microfin.ledger.records import Decisions, Received
from microfin.ledger.wire import NewerVersion
from microfin_worker import metrics
from microfin_worker.account_memory import AccountMemory
from microfin_worker.answers import Answers
from microfin_worker.batch import (
    Batch,
    PlaceLost,
    RoutingChanged,
    commit_batch,
    commit_nothing,
    decide_ahead,
    read_batch,
)
from microfin_worker.batch_size import BatchSize
from microfin_worker.fingerprint import fingerprint
from microfin_worker.limits import Limits
from microfin_worker.log_recognition import LastSight, Moment, recognise_again, recognise_log
from microfin_worker.outbox import Outbox
from microfin_worker.pacing import Pacing
from microfin_worker.pauses import Pauses
from microfin_worker.ports import (
    Claim,
    DataRefused,
    OutboxPlace,
    Place,
    Ports,
    Record,
    RepeatsFound,
    origin,
)
from microfin_worker.states import States

logger = structlog.get_logger(__name__)

TOUCH_AFTER: Final = 3.0
"""Seconds without a commit after which an owner shows that it is alive."""

BATCHES_AHEAD: Final = 8
"""Batches fetched at once, so that one can be decided while another is committed."""

LOOK_UP_BATCHES: Final = 8
"""Batches whose outcomes are looked up after a claim or a repeat: repeats come in bursts."""

_TOUCH_SENT_AFTER: Final = 0.5  # seconds without a commit, if outbox rows can be deleted
_INSPECT_AFTER: Final = 5.0  # seconds between two checks that the log is still the same
_FULL_OUTBOX_PAUSE: Final = 0.05  # seconds


class Equipment(msgspec.Struct, frozen=True):
    """The equipment of a worker, which it retains from one tenure to the next."""

    ports: Ports
    limits: Limits
    outbox: Outbox
    answers: Answers
    batch_size: BatchSize
    pacing: Pacing
    pauses: Pauses
    states: States


async def begin_tenure(equipment: Equipment, claim: Claim) -> "Tenure":
    """Return the tenure of `claim`, if the log is the one that its row was written from.

    Raises `LogLost` if it is not.
    """
    log, clock, row = equipment.ports.log, equipment.ports.clock, claim.row
    sight = LastSight(clock)
    await recognise_log(log, clock, row.next_offset, row.fingerprint)
    await log.seek(row.next_offset)
    return Tenure(equipment, claim, sight)


class Tenure:
    """A worker's work under one claim. `place` is its current place in the partition."""

    def __init__(self, equipment: Equipment, claim: Claim, sight: LastSight) -> None:
        row = claim.row
        self.place = Place(row.partition, row.epoch, row.next_offset, row.routing)
        self._fingerprint = row.fingerprint  # of the record that was decided last
        self._log = equipment.ports.log
        self._store = equipment.ports.store
        self._clock = equipment.ports.clock
        self._limits = equipment.limits
        self._outbox = equipment.outbox
        self._answers = equipment.answers
        self._batch_size = equipment.batch_size
        self._pacing = equipment.pacing
        self._pauses = equipment.pauses
        self._states = equipment.states
        self._memory = AccountMemory(equipment.limits.accounts)
        self._look_up = LOOK_UP_BATCHES  # the log may repeat what was decided under earlier claims
        self._sight = sight
        self._outbox.replace_all(claim.outbox, row.routing)
        self._touched = self._inspected = self._clock.monotonic()

    async def work(self) -> None:
        """Commit batch after batch, until the worker is asked to stop."""
        while not self._pauses.stopping:
            if len(self._outbox) > self._limits.outbox:
                await self._maintain()
                await self._pauses.rest(_FULL_OUTBOX_PAUSE)
                continue
            await self._pacing.pause(self._clock)
            asked = self._sight.now()
            records = await self._log.fetch(self._batch_size.limit * BATCHES_AHEAD)
            if records:
                await self._recognise(records, asked)
                self._pacing.begin(len(records), self._clock.monotonic())
                await self._commit_all(records)
            await self._maintain()

    async def _recognise(self, records: Sequence[Record], asked: Moment) -> None:
        """Raise `LogLost` if `records`, requested at `asked`, come from another log."""
        next_offset = self.place.next_offset
        if self._sight.may_be_replaced(next_offset, records[-1].time):
            asked = self._sight.now()
            await recognise_again(self._log, self._clock, next_offset, self._fingerprint)
        self._sight.renew(asked)

    # Batches --------------------------------------------------------------------------------

    async def _commit_all(self, records: Sequence[Record]) -> None:
        """Commit all of `records`, batch by batch.

        While the database commits one batch the next one is decided, if memory alone allows.
        """
        batch = await self._read_batch(records, before=None)
        while not self._pauses.stopping:
            if len(batch.records) < len(records):
                committed, following = await self._commit_and_decide(batch, records)
            else:
                committed, following = await self._commit(batch), None
            if committed:
                records = records[len(batch.records) :]
            if not records:
                return
            batch = following or await self._read_batch(records, before=None)

    async def _commit_and_decide(
        self, batch: Batch, records: Sequence[Record]
    ) -> tuple[bool, Batch | None]:
        """Return whether `batch` was committed, and if so the batch after it, if it is decided."""
        committing = asyncio.create_task(self._commit(batch))
        try:
            following = await self._decide_following(records, batch)
        finally:
            committed = await committing
        return committed, following if committed else None

    async def _read_batch(self, records: Sequence[Record], before: Decisions | None) -> Batch:
        size = self._batch_size
        batch = read_batch(records, size.limit, size.condemned, self._clock)
        if self._look_up == 0:
            await decide_ahead(batch, self.place, self._memory, before, self._clock)
        return batch

    async def _decide_following(self, records: Sequence[Record], batch: Batch) -> Batch | None:
        """Decide the batch after `batch` while `batch` is being committed, if that is possible."""
        rest = records[len(batch.records) :]
        await batch.writing.wait()
        if not rest or batch.decisions is None:
            return None
        try:
            following = await self._read_batch(rest, before=batch.decisions)
        except NewerVersion:
            return None  # raised again when this batch is the next to commit
        return following if following.decisions is not None else None

    async def _commit(self, batch: Batch) -> bool:
        """Commit a batch; return False if it must be read and decided again."""
        try:
            return await self._commit_now(batch)
        finally:
            batch.writing.set()  # nobody need wait any more to decide ahead

    async def _commit_now(self, batch: Batch) -> bool:
        place = self.place
        if batch.records[0].offset != place.next_offset:
            raise PlaceLost(f"fetched {batch.records[0].offset}, expected {place.next_offset}")
        self._states.oldest = batch.records[0].time
        sent = self._outbox.acknowledged()
        began = self._clock.monotonic()
        try:
            decisions = await commit_batch(self._store, place, self._memory, batch, sent)
        except RoutingChanged as change:
            self._adopt_routing(change)
            return False
        except RepeatsFound:
            self._look_up = LOOK_UP_BATCHES
            return False
        except DataRefused as refusal:
            if place.next_offset in self._batch_size.condemned:
                raise
            self._narrow(place.next_offset, len(batch.records), origin(refusal))
            return False
        took = self._clock.monotonic() - began
        batch.phases.committed(batch.records)
        metrics.COMMIT_SECONDS.observe(took)
        self._pacing.committed(took)
        self._advance(batch.records[-1], decisions, len(batch.records))
        self._outbox.deleted(sent)
        self._outbox.add(decisions.outbox)
        await self._answers.publish(decisions, batch.phases)
        return True

    def _advance(self, last: Record, decisions: Decisions, size: int) -> None:
        """Remember a committed batch of `size` records up to `last`."""
        place, next_offset = self.place, last.offset + 1
        self.place = Place(place.partition, place.epoch, next_offset, place.routing)
        self._fingerprint = fingerprint(last)
        self._memory.remember(decisions.accounts)
        self._look_up = max(0, self._look_up - 1)
        self._batch_size.committed(looks_up=self._look_up > 0)
        self._pauses.committed()
        self._touched = self._clock.monotonic()
        self._states.committed(next_offset, size)
        metrics.count(decisions, size)
        for received in decisions.quarantined:
            logger.warning(
                "quarantined",
                partition=place.partition,
                offset=received.offset,
                operation=_operation_of(received),
                reason=received.fault,
            )

    def _adopt_routing(self, change: RoutingChanged) -> None:
        """Continue under the row's routing: a worker's routing *is* its partition's row."""
        place = self.place
        logger.info("routing changed", routing=str(change.routing))
        self._memory.forget()
        self.place = Place(place.partition, place.epoch, place.next_offset, change.routing)
        self._outbox.routing = change.routing
        self._states.measure(self.place)

    def _narrow(self, offset: int, size: int, error: BaseException) -> None:
        """Prepare to decide again `size` records from `offset`, which the database refused.

        After the first refusal the batch retains its size: it is decided from what the database
        holds, because this worker's memory may be at fault. After others it is halved, down to a
        single record, which is condemned. If the database refuses even to quarantine that one, the
        worker claims anew.
        """
        logger.warning("the database refuses a batch", offset=offset, size=size, error=repr(error))
        metrics.FAILURES.labels(type(error).__name__).inc()
        self._look_up = LOOK_UP_BATCHES
        if not self._batch_size.memory_is_doubtful:
            self._batch_size.memory_is_doubtful = True
            self._memory.forget()
            return
        if size == 1:
            logger.error("quarantining a record that the database refuses", offset=offset)
        self._batch_size.narrow(offset, size)

    # Between batches ------------------------------------------------------------------------

    async def _maintain(self) -> None:
        """Do what is due when no commit does it: show that the partition has an owner, delete
        outbox rows that were sent, and check the log."""
        now = self._clock.monotonic()
        self._states.oldest = None
        sent = self._outbox.acknowledged()
        idle = now - self._touched
        if idle >= TOUCH_AFTER or (sent and idle >= _TOUCH_SENT_AFTER):
            await self._touch(sent)
            await self._log.note(self.place.next_offset)
        if now - self._inspected >= _INSPECT_AFTER:
            self._inspected = now
            asked = self._sight.now()
            await recognise_again(self._log, self._clock, self.place.next_offset, self._fingerprint)
            self._sight.renew(asked)

    async def end(self) -> None:
        """Delete the outbox rows that were sent, and show the owner once more."""
        await self._touch(self._outbox.acknowledged())

    async def _touch(self, sent: Sequence[OutboxPlace]) -> None:
        try:
            await commit_nothing(self._store, self.place, self._fingerprint, sent)
        except RoutingChanged as change:
            self._adopt_routing(change)
            return
        self._touched = self._clock.monotonic()
        self._outbox.deleted(sent)


def _operation_of(received: Received) -> str | None:
    if received.command is not None:
        return received.command.operation
    return received.identity.operation if received.identity is not None else None
