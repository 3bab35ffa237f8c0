"""The worker: claims its partition, settles its commands batch by batch, and tells the answers.

Whenever it is not known whether a commit has succeeded the worker forgets everything and claims
anew; it never guesses. What the database refuses for its data is known not to have: that batch is
narrowed down to the record that is to blame, which goes to quarantine. What stops the worker for
good (a lost log, a record from the future) leaves it running, not ready, and saying why: a restart
would change nothing.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Final

import msgspec
import structlog

from microfin.ledger.decision import Decisions, GenerationAhead, Received
from microfin.ledger.wire import NewerVersion
from microfin.postgres.connections import is_connection_loss, is_data_error
from microfin.postgres.shards import NotMigrated, WrongShard
from microfin.redis.account_cache import CachedAccount
from microfin_worker import metrics
from microfin_worker.account_memory import AccountMemory
from microfin_worker.batch import (
    Batch,
    PlaceLost,
    RoutingChanged,
    check,
    commit_batch,
    decide_ahead,
    gather,
)
from microfin_worker.batch_statement import Place
from microfin_worker.edges import (
    Edges,
    OutOfRange,
    PartitionMissing,
    Record,
)
from microfin_worker.fingerprint import fingerprint
from microfin_worker.log_recognition import (
    LastSight,
    LogLost,
    Moment,
    recognise_again,
    recognise_log,
)
from microfin_worker.outbox import Outbox
from microfin_worker.pacing import Gathering
from microfin_worker.phases import BatchPhases
from microfin_worker.postgres_store import Fenced, RepeatsFound
from microfin_worker.status import Status

logger = structlog.get_logger(__name__)

TOUCH_AFTER: Final = 3.0
"""Seconds without a commit after which an owner shows that it lives."""

FENCED_PAUSE: Final = 10.0
"""Seconds for which the row must be idle before a fenced worker claims again."""

BATCHES_AHEAD: Final = 8
"""Batches fetched at one time, so that one can be decided while another is committed."""

LOOK_UP_BATCHES: Final = 8
"""Batches whose outcomes are looked up first after a repeat was met: repeats come in bursts."""

_INSPECT_AFTER: Final = 5.0  # seconds between two looks whether the log is still the same
_MEASURE_EVERY: Final = 0.5  # seconds
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 2.0
_UNREACHABLE: Final = (
    "Kafka does not tell where the log ends: are its brokers there, and is this worker's "
    "certificate valid?"
)
_FLUSH: Final = 3.0  # seconds that a graceful stop waits for the outbox


class Limits(msgspec.Struct, frozen=True):
    """The most commands in a batch, accounts in memory, and rows in the outbox; and the seconds
    from the beginning of a batch that held several commands to the next one's."""

    batch: int = 500
    accounts: int = 100_000
    outbox: int = 10_000
    interval: float = 0.0


class Worker:
    """One partition's worker. `run` returns after `stop`, within a batch."""

    def __init__(self, partition: int, shards: int, edges: Edges, limits: Limits) -> None:
        self._partition = partition
        self._log = edges.log
        self._log_unanswered = edges.log_unanswered
        self._store = edges.store
        self._replies = edges.replies
        self._cache = edges.cache
        self._clock = edges.clock
        self._limits = limits
        self._limit = limits.batch
        self._memory = AccountMemory(limits.accounts)
        self._outbox = Outbox(partition, shards, edges.log, edges.clock)
        self._place: Place | None = None
        self._mark: bytes | None = None
        self._held: int | None = None
        self._stopping = asyncio.Event()
        self._telling: asyncio.Task[None] | None = None
        self._doubtful = False
        self._condemned: set[int] = set()
        self._look_up = LOOK_UP_BATCHES
        self._gathering = Gathering(limits.interval, limits.batch)
        self._touched = 0.0
        self._inspected = 0.0
        self._sight = LastSight(edges.clock)
        self._oldest: int | None = None
        self._pause = _FIRST_PAUSE
        self.status = Status(partition)

    @property
    def stopping(self) -> bool:
        """Whether the worker has been told to stop."""
        return self._stopping.is_set()

    @property
    def undelivered(self) -> int:
        """How many commands this worker has sent on, or must, without an acknowledgement."""
        return len(self._outbox)

    def stop(self) -> None:
        """End after the batch under way."""
        self._stopping.set()

    async def run(self) -> None:
        """Work until stopped."""
        sender = asyncio.create_task(self._outbox.run())
        measuring = asyncio.create_task(self._keep_measuring())
        try:
            while not self._stopping.is_set():
                await self._survive()
            await self._finish()
        finally:
            sender.cancel()
            measuring.cancel()
            self._become("stopped", "asked to stop")

    async def _survive(self) -> None:
        """Claim and work; turn every failure into the pause or the stop that it asks for."""
        try:
            await self._claim()
            await self._work()
        except (LogLost, GenerationAhead, NewerVersion, WrongShard) as error:
            await self._stop_loudly(error)
        except Fenced as error:
            await self._wait_unfenced(error)
        except (PartitionMissing, NotMigrated) as error:
            self._become("waiting", f"{error}; waiting for it")
            await self._rest(1.0)
        except (OutOfRange, PlaceLost) as error:
            self._become("retrying", str(error))
            await self._rest(_FIRST_PAUSE)
        except Exception as error:  # noqa: BLE001 - whatever it is, claiming anew is the safe answer
            await self._retry(error)

    # Claiming -------------------------------------------------------------------------------

    async def _claim(self) -> None:
        self._become("claiming", "claiming the partition")
        self._memory.forget()
        self._place = None
        self._look_up = LOOK_UP_BATCHES  # the log may repeat what an earlier claim has settled
        await self._log.bounds()  # a partition that is not there is not claimed
        held, self._held = self._held, None  # a claim that fails may have raised the epoch itself
        claim = await self._store.claim(held)
        row = claim.row
        self._held = row.epoch
        metrics.CLAIMS.inc()
        asked = self._sight.now()
        await recognise_log(self._log, self._clock, row.next_offset, row.fingerprint)
        self._sight.renew(asked)
        await self._log.seek(row.next_offset)
        self._place = Place(row.partition, row.epoch, row.next_offset, row.routing)
        self._mark = row.fingerprint
        self._outbox.replace_all(claim.outbox, row.routing)
        self._touched = self._inspected = self._clock.monotonic()
        self._measure()
        self._become("working", "")
        logger.info(
            "claimed",
            partition=row.partition,
            epoch=row.epoch,
            next_offset=row.next_offset,
            generation=row.routing.generation,
            outbox=len(claim.outbox),
        )

    # Working --------------------------------------------------------------------------------

    async def _work(self) -> None:
        while not self._stopping.is_set():
            if len(self._outbox) > self._limits.outbox:
                await self._keep_up()
                await self._rest(0.05)
                continue
            await self._let_gather()
            asked = self._sight.now()
            records = await self._log.fetch(self._limit * BATCHES_AHEAD)
            if records:
                await self._see_log(records, asked)
                self._gathering.begin(len(records), self._clock.monotonic())
                await self._settle(records)
            await self._keep_up()

    async def _see_log(self, records: Sequence[Record], asked: Moment) -> None:
        """Decide nothing from a log that was put into this one's place since it was seen last.

        `asked` is when `records` were asked for.
        """
        next_offset = self._claimed().next_offset
        if self._sight.may_deceive(next_offset, records[-1].time):
            asked = self._sight.now()
            await recognise_again(self._log, self._clock, next_offset, self._mark)
        self._sight.renew(asked)

    async def _let_gather(self) -> None:
        left = self._gathering.left(self._clock.monotonic())
        if left > 0:
            await self._clock.sleep(left)

    async def _settle(self, records: Sequence[Record]) -> None:
        """Commit `records`, all of them, batch by batch.

        While the database commits one batch the next one is decided, if memory alone allows.
        """
        batch = await self._gather(records, before=None)
        while not self._stopping.is_set():
            committing = asyncio.create_task(self._commit(batch))
            try:
                following = await self._decide_following(records, batch)
            finally:
                committed = await committing
            if committed:
                records = records[len(batch.records) :]
            else:
                following = None
            if not records:
                return
            batch = following or await self._gather(records, before=None)

    async def _gather(self, records: Sequence[Record], before: Decisions | None) -> Batch:
        batch = gather(records, self._limit, self._condemned, self._clock)
        if self._look_up == 0:
            await decide_ahead(batch, self._claimed(), self._memory, before, self._clock)
        return batch

    async def _decide_following(self, records: Sequence[Record], batch: Batch) -> Batch | None:
        """Decide what comes after `batch` while that is being committed, if it can be."""
        rest = records[len(batch.records) :]
        await batch.writing.wait()
        if not rest or batch.decisions is None:
            return None
        try:
            following = await self._gather(rest, before=batch.decisions)
        except NewerVersion:
            return None  # said when its turn comes
        return following if following.decisions is not None else None

    async def _commit(self, batch: Batch) -> bool:
        """Commit a batch and take it over; False where it must be gathered and decided again."""
        try:
            return await self._commit_now(batch)
        finally:
            batch.writing.set()  # whoever waits to decide ahead need not any more

    async def _commit_now(self, batch: Batch) -> bool:
        place = self._claimed()
        if batch.records[0].offset != place.next_offset:
            raise PlaceLost(f"fetched {batch.records[0].offset}, expected {place.next_offset}")
        self._oldest = batch.records[0].time
        sent = self._outbox.acknowledged()
        began = self._clock.monotonic()
        try:
            decisions = await commit_batch(self._store, place, self._memory, batch, sent)
        except RoutingChanged as change:
            self._adopt(change)
            return False
        except RepeatsFound:
            self._look_up = LOOK_UP_BATCHES
            return False
        except Exception as error:
            if not is_data_error(error) or place.next_offset in self._condemned:
                raise
            self._narrow(place.next_offset, len(batch.records), error)
            return False
        took = self._clock.monotonic() - began
        batch.phases.committed(batch.records)
        metrics.COMMIT_SECONDS.observe(took)
        self._gathering.committed(took)
        self._advance(place, batch.records[-1], decisions, len(batch.records))
        self._outbox.deleted(sent)
        self._outbox.add(decisions.outbox)
        await self._tell(decisions, batch.phases)
        return True

    def _advance(self, place: Place, last: Record, decisions: Decisions, size: int) -> None:
        """Take the commit over into memory."""
        self._place = Place(place.partition, place.epoch, last.offset + 1, place.routing)
        self._mark = fingerprint(last)
        self._memory.remember(decisions.accounts)
        self._look_up = max(0, self._look_up - 1)
        self._doubtful = self._doubtful and self._look_up > 0
        if self._condemned:
            self._condemned.clear()  # its like may follow: one by one, until one is taken
        else:
            self._limit = min(self._limits.batch, self._limit * 2)
        self._pause = _FIRST_PAUSE
        self._touched = self._clock.monotonic()
        self.status.next_offset = last.offset + 1
        self.status.batches += 1
        self.status.commands += size
        metrics.count(decisions, size)
        for received in decisions.quarantined:
            logger.warning(
                "quarantined",
                partition=place.partition,
                offset=received.offset,
                operation=_operation_of(received),
                reason=received.fault,
            )

    def _adopt(self, change: RoutingChanged) -> None:
        """Work on under the row's routing: a worker's routing *is* its partition's row."""
        place = self._claimed()
        logger.info("routing changed", routing=str(change.routing))
        self._memory.forget()
        self._place = Place(place.partition, place.epoch, place.next_offset, change.routing)
        self._outbox.routing = change.routing
        self._measure()

    def _narrow(self, offset: int, size: int, error: Exception) -> None:
        """Halve the batch that the database refused; a single record that it refuses is out.

        A refusal is an answer: nothing was written, the claim stands, and the records are decided
        again at once. The first time nothing narrows: the same batch is decided from what the
        database holds, for this worker's memory may be to blame. A record that is out and refused
        even so is left to a fresh claim.
        """
        logger.warning("the database refuses a batch", offset=offset, size=size, error=repr(error))
        metrics.FAILURES.labels(type(error).__name__).inc()
        self._look_up = LOOK_UP_BATCHES
        if not self._doubtful:
            self._doubtful = True
            self._memory.forget()
        elif size > 1:
            self._limit = max(1, size // 2)
        else:
            logger.error("quarantining a record that the database refuses", offset=offset)
            self._condemned.add(offset)

    async def _tell(self, decisions: Decisions, phases: BatchPhases) -> None:
        """Refresh the cache and answer, while the next batch is already being gathered."""
        if self._telling is not None:
            await self._telling
        self._telling = asyncio.create_task(self._tell_now(decisions, phases))

    async def _tell_now(self, decisions: Decisions, phases: BatchPhases) -> None:
        """Best effort: no failure in here may reach the ledger, whose commit is done."""
        try:
            await self._refresh_and_answer(decisions)
        except Exception as error:
            logger.error("answers were lost", exc_info=error)
        else:
            phases.told(len(decisions.answers))

    async def _refresh_and_answer(self, decisions: Decisions) -> None:
        await self._cache.put(
            CachedAccount(
                account.number,
                account.owner,
                account.currency,
                account.balance,
                account.state,
                account.seq,
                account.version,
            )
            for account in decisions.accounts.values()
        )
        if decisions.answers:
            await self._replies.send(decisions.answers)

    # Between batches ------------------------------------------------------------------------

    async def _keep_up(self) -> None:
        """Show that the partition has an owner, tidy the outbox, watch the log: all when idle."""
        now = self._clock.monotonic()
        self._oldest = None
        sent = self._outbox.acknowledged()
        if now - self._touched >= TOUCH_AFTER or (sent and now - self._touched >= 0.5):
            await self._touch(sent)
            await self._log.note(self._claimed().next_offset)
        if now - self._inspected >= _INSPECT_AFTER:
            place = self._claimed()
            self._inspected = now
            asked = self._sight.now()
            await recognise_log(self._log, self._clock, place.next_offset, self._mark)
            self._sight.renew(asked)

    async def _touch(self, sent: Sequence[tuple[int, int]]) -> None:
        try:
            async with self._store.transaction() as transaction:
                check(await transaction.lock(), self._claimed())
                await transaction.touch()
                await transaction.delete_sent(sent)
        except RoutingChanged as change:
            self._adopt(change)
            return
        self._touched = self._clock.monotonic()
        self._outbox.deleted(sent)

    def _claimed(self) -> Place:
        if self._place is None:
            raise PlaceLost("the partition is not claimed")
        return self._place

    async def _keep_measuring(self) -> None:
        """Keep the status true also while the worker waits for a database or a broker."""
        while True:
            self._measure()
            await self._clock.sleep(_MEASURE_EVERY)

    def _measure(self) -> None:
        status, place = self.status, self._place
        if place is not None:
            status.epoch, status.next_offset = place.epoch, place.next_offset
            status.generation = place.routing.generation
            status.partition_count = place.routing.partition_count
        status.end_offset = max(self._log.end(), status.next_offset)
        status.lag_records = status.end_offset - status.next_offset
        age = 0 if self._oldest is None else self._clock.now() - self._oldest
        status.lag_seconds = max(0, age) / 1000
        status.outbox_size = len(self._outbox)
        status.outbox_seconds = self._outbox.oldest_seconds()
        status.log_unanswered_seconds = self._log_unanswered()
        if status.state == "working":
            status.reason = _UNREACHABLE if status.log_unreachable else ""
        metrics.show(status)

    # Failures and pauses --------------------------------------------------------------------

    async def _stop_loudly(self, error: Exception) -> None:
        """Say what is wrong until somebody restarts this worker; decide nothing."""
        self._become("stopped", str(error))
        while not self._stopping.is_set():
            logger.critical("stopped", partition=self._partition, reason=str(error))
            await self._rest(30.0)

    async def _wait_unfenced(self, error: Fenced) -> None:
        logger.warning("fenced", partition=self._partition, reason=str(error))
        self._become("fenced", f"another worker has claimed the partition: {error}")
        self._held = None
        idle = 0.0
        while idle < FENCED_PAUSE and not self._stopping.is_set():
            await self._rest(1.0)
            try:
                idle = await self._store.idle_seconds()
            except Exception as lost:  # noqa: BLE001 - a fenced worker only looks, and looks again
                logger.warning("cannot look for the owner", error=repr(lost))

    async def _retry(self, error: Exception) -> None:
        metrics.FAILURES.labels(type(error).__name__).inc()
        self._become("retrying", repr(error))
        if is_connection_loss(error) or is_data_error(error):
            logger.warning("claiming anew", partition=self._partition, error=repr(error))
        else:
            logger.error("claiming anew", partition=self._partition, exc_info=error)
        await self._rest(self._pause)
        self._pause = min(_LONGEST_PAUSE, self._pause * 2)

    async def _rest(self, seconds: float) -> None:
        """Wait, but no longer than until the stop."""
        sleeping = asyncio.ensure_future(self._clock.sleep(seconds))
        stopping = asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait((sleeping, stopping), return_when=asyncio.FIRST_COMPLETED)
        sleeping.cancel()
        stopping.cancel()

    async def _finish(self) -> None:
        """Tell the last answers and give the outbox a moment; what is left is resent later."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FLUSH):
                if self._telling is not None:
                    await self._telling
                while len(self._outbox):
                    await self._clock.sleep(0.05)
        if self._place is not None:
            with contextlib.suppress(Exception):
                await self._touch(self._outbox.acknowledged())

    def _become(self, state: str, reason: str) -> None:
        self.status.state = state  # type: ignore[assignment]
        self.status.reason = reason
        metrics.show(self.status)


def _operation_of(received: Received) -> str | None:
    if received.command is not None:
        return received.command.operation
    return received.identity.operation if received.identity is not None else None
