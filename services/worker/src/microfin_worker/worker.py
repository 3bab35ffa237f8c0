"""The worker of one partition: it claims the partition, works under the claim, and claims anew.

After any failure it drops its tenure and claims anew, or waits until that can succeed. A failure
that a restart would not change (a lost log, a record of a newer version or a later routing) stops
its work: it continues to run, not ready, and reports why.
"""

import asyncio
import contextlib
from collections.abc import Awaitable
from typing import Final

import structlog

from microfin.ledger.decision import GenerationAhead
from microfin.ledger.wire import NewerVersion
from microfin_worker import metrics
from microfin_worker.answers import Answers
from microfin_worker.batch import PlaceLost
from microfin_worker.batch_size import BatchSize
from microfin_worker.hold_ends import HoldEnds
from microfin_worker.limits import Limits
from microfin_worker.log_recognition import LogLost
from microfin_worker.outbox import Outbox
from microfin_worker.pacing import Pacing
from microfin_worker.pauses import FIRST_PAUSE, Pauses
from microfin_worker.ports import (
    DataRefused,
    Fenced,
    OutOfRange,
    PartitionMissing,
    Ports,
    StoreNotReady,
    StoreUnavailable,
    WrongStore,
    origin,
)
from microfin_worker.states import States
from microfin_worker.tenure import Equipment, Tenure, begin_tenure

logger = structlog.get_logger(__name__)

FENCED_PAUSE: Final = 10.0
"""Seconds for which the partition's row must be idle before a fenced worker claims again."""

_WAIT_SECONDS: Final = 1.0  # until a partition or a ledger that is missing is looked for again
_COMPLAIN_SECONDS: Final = 30.0  # between two log lines of a worker that has stopped
_FLUSH_SECONDS: Final = 3.0  # for which a graceful stop waits for the outbox


class Worker:
    """One partition's worker. `run` returns after `stop`, within a batch."""

    def __init__(self, partition: int, shards: int, ports: Ports, limits: Limits) -> None:
        self._partition = partition
        self._ports = ports
        self._outbox = Outbox(partition, shards, ports.log, ports.clock)
        self._answers = Answers(ports.replies, ports.cache)
        self._pauses = Pauses(ports.clock)
        self._states = States(partition, ports, self._outbox)
        self._equipment = Equipment(
            ports=ports,
            limits=limits,
            outbox=self._outbox,
            answers=self._answers,
            batch_size=BatchSize(limits.batch),
            pacing=Pacing(limits.interval, limits.batch),
            pauses=self._pauses,
            states=self._states,
        )
        self._tenure: Tenure | None = None
        self._held: int | None = None  # the epoch of the last claim, as far as it is known
        self.status = self._states.status
        self._hold_ends = HoldEnds(
            self.status, ports.store, ports.log, ports.clock, limits.hold_look
        )

    @property
    def stopping(self) -> bool:
        """Whether the worker was asked to stop."""
        return self._pauses.stopping

    @property
    def undelivered(self) -> int:
        """How many commands this worker must send on or has sent on without acknowledgement."""
        return len(self._outbox)

    def stop(self) -> None:
        """End after the batch under way."""
        self._pauses.stop()

    async def run(self, connected: Awaitable[object] | None = None) -> None:
        """Work until stopped. The first claim waits for `connected`."""
        beside = [asyncio.create_task(self._outbox.run())]
        try:
            if connected is not None:
                await self._pauses.unless_stopped(connected)
            beside.append(asyncio.create_task(self._hold_ends.run()))
            while not self.stopping:
                await self._claim_and_work()
            await self._finish()
        finally:
            for task in beside:
                task.cancel()
            self._states.become("stopped", "asked to stop")

    def measure(self) -> None:
        """Renew the status, as who shows it must: also while the worker waits for something."""
        self._states.measure(self._tenure.place if self._tenure else None)

    async def _claim_and_work(self) -> None:
        """Claim and work; answer every failure with the pause or the stop that it requires."""
        try:
            await self._claim()
            if self._tenure is not None:
                await self._tenure.work()
        except (LogLost, GenerationAhead, NewerVersion, WrongStore) as error:
            await self._remain_stopped(error)
        except Fenced as error:
            await self._remain_fenced(error)
        except (PartitionMissing, StoreNotReady) as error:
            self._states.become("waiting", f"{error}; waiting for it")
            await self._pauses.rest(_WAIT_SECONDS)
        except (OutOfRange, PlaceLost) as error:
            self._states.become("retrying", str(error))
            await self._pauses.rest(FIRST_PAUSE)
        except Exception as error:  # noqa: BLE001 - claiming anew is safe after any error
            await self._retry(error)

    async def _claim(self) -> None:
        """Forget everything and begin a new tenure."""
        self._states.become("claiming", "claiming the partition")
        self._tenure = None
        await self._ports.log.bounds()  # a partition that the log does not have is not claimed
        held, self._held = self._held, None  # a claim that fails may have raised the epoch already
        claim = await self._ports.store.claim(held)
        row = claim.row
        self._held = row.epoch
        metrics.CLAIMS.inc()
        self._tenure = await begin_tenure(self._equipment, claim)
        self._states.measure(self._tenure.place)
        self._states.become("working", "")
        logger.info(
            "claimed",
            partition=row.partition,
            epoch=row.epoch,
            next_offset=row.next_offset,
            generation=row.routing.generation,
            outbox=len(claim.outbox),
        )

    # Failures -------------------------------------------------------------------------------

    async def _remain_stopped(self, error: Exception) -> None:
        """Decide nothing, and report why, until somebody restarts this worker."""
        self._states.become("stopped", str(error))
        while not self.stopping:
            logger.critical("stopped", partition=self._partition, reason=str(error))
            await self._pauses.rest(_COMPLAIN_SECONDS)

    async def _remain_fenced(self, error: Fenced) -> None:
        """Wait until the partition's owner has been idle for long enough."""
        logger.warning("fenced", partition=self._partition, reason=str(error))
        self._states.become("fenced", f"another worker has claimed the partition: {error}")
        self._held = None
        idle = 0.0
        while idle < FENCED_PAUSE and not self.stopping:
            await self._pauses.rest(1.0)
            try:
                idle = await self._ports.store.idle_seconds()
            except Exception as failure:  # noqa: BLE001 - it only reads, and tries again
                logger.warning("cannot look for the owner", error=repr(origin(failure)))

    async def _retry(self, failure: Exception) -> None:
        """Pause before the worker claims anew."""
        error = origin(failure)
        metrics.FAILURES.labels(type(error).__name__).inc()
        self._states.become("retrying", repr(error))
        if isinstance(failure, StoreUnavailable | DataRefused | OSError | TimeoutError):
            logger.warning("claiming anew", partition=self._partition, error=repr(error))
        else:
            logger.error("claiming anew", partition=self._partition, exc_info=error)
        await self._pauses.before_retry()

    async def _finish(self) -> None:
        """Publish the last answers and give the outbox a moment; the next claim sends the rest."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FLUSH_SECONDS):
                await self._answers.finish()
                while len(self._outbox):
                    await self._ports.clock.sleep(0.05)
        if self._tenure is not None:
            with contextlib.suppress(Exception):
                await self._tenure.end()
