"""The way of a command: through the gate, into the log, and back with its outcome.

Nothing here queries PostgreSQL: the process has its lease already, the rest is Kafka and a reply.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import msgspec
import structlog
from msgspec.structs import replace

from microfin.kafka.producer import Appended, CommandProducer, ProduceRefused, ProduceUnknown
from microfin.ledger.wire import Command, version_of
from microfin.process.settings import ApiSettings
from microfin_api import metrics
from microfin_api.commands.backpressure import Backpressure
from microfin_api.commands.clock_check import ClockCheck
from microfin_api.commands.sending_gate import Destination, SendingGate
from microfin_api.commands.waiting import Settled, Waiter, Waiting
from microfin_api.http.problems import Problem
from microfin_api.phases import CommandPhases

logger = structlog.get_logger(__name__)

TraceHeaders = Sequence[tuple[str, bytes]]

_NOT_UPGRADED = (
    "This waits for workers that can read it: an upgrade is under way, or a shard's database does "
    "not answer. Nothing was done."
)


class Accepted(msgspec.Struct, frozen=True):
    """A command that was or will be decided: it is in the log for good.

    `appended` is None if only its outcome shows that.
    """

    operation: str
    appended: Appended | None
    debited: bool


class Unknown(Problem):
    """Nobody knows yet whether the command takes effect."""

    def __init__(self, operation: str) -> None:
        super().__init__("unknown", operationId=operation, operationStatus="unknown")


def unknown_after(error: BaseException, operation: str) -> Unknown:
    """Return the answer to a request that `error` broke off after its command was sent."""
    logger.warning("broken off after sending", operation=operation, exc_info=error)
    return Unknown(operation)


class Submission:
    """Sends commands and waits for their outcomes."""

    def __init__(
        self,
        settings: ApiSettings,
        gate: SendingGate,
        producer: CommandProducer,
        waiting: Waiting,
        clock: ClockCheck,
    ) -> None:
        self._settings = settings
        self._gate = gate
        self._producer = producer
        self._waiting = waiting
        self._clock = clock
        self._backpressure = Backpressure(settings.partition_limit)
        self._sendings: set[asyncio.Task[None]] = set()

    async def submit(
        self, command: Command, *, at_once: bool, trace: TraceHeaders, phases: CommandPhases
    ) -> Settled | Accepted:
        """Send `command` and return its final outcome, or that it is accepted.

        `at_once`: acceptance is enough, even if the outcome is known first. `phases` receives the
        moments of the command.

        Raises `Problem` if it was not sent, was refused, or has no certain answer in time. Once it
        was sent this raises nothing else: any error that breaks the wait off, a cancellation too,
        becomes `Unknown`, because the command may still take effect.
        """
        destination = await self._gate.pass_through(command.account)
        self._require_readers(command)
        self._backpressure.enter(destination.partition)
        command = replace(
            command,
            generation=destination.generation,
            deadline=int((time.time() + self._settings.command_deadline) * 1000),
            reply=self._waiting.reply_address(),
        )
        waiter = self._waiting.expect(command)
        phases.sent()
        sending = asyncio.create_task(self._send(waiter, destination, trace, phases))
        self._sendings.add(sending)
        sending.add_done_callback(self._sendings.discard)
        try:
            result = await self._answer(waiter, destination, at_once=at_once)
            if isinstance(result, Settled):
                phases.settled(waiter.settled_at)
            return result
        except Problem:
            raise
        except (Exception, asyncio.CancelledError) as error:
            raise unknown_after(error, command.operation) from error
        finally:
            self._backpressure.leave(destination.partition, sending)
            self._waiting.forget(waiter)

    def _require_readers(self, command: Command) -> None:
        """Raise `Problem` for a command whose workers may not all read its version yet.

        Such a record would stop the partition of a worker of the release before.
        """
        version = version_of(command)
        accounts = (command.account, command.counterparty or command.account)
        if version > 1 and not all(self._gate.reads(version, it) for it in accounts):
            raise Problem("unavailable", _NOT_UPGRADED)

    async def finish(self, seconds: float) -> None:
        """Wait until all commands under way have been acknowledged, or the time is over."""
        if self._sendings:
            await asyncio.wait(self._sendings, timeout=seconds)

    async def _send(
        self, waiter: Waiter, destination: Destination, trace: TraceHeaders, phases: CommandPhases
    ) -> None:
        if not self._gate.still_leads_to(waiter.command.account, destination):
            waiter.fail(Problem("unavailable", "The lease has run out. Nothing was done."))
            return
        begun, sent_at = time.monotonic(), time.time()
        try:
            appended = await self._producer.send(destination.partition, waiter.command, trace)
        except ProduceRefused as error:
            logger.warning("not sent", operation=waiter.command.operation, error=str(error))
            waiter.fail(Problem("unavailable", "The log accepts no commands. Nothing was done."))
        except ProduceUnknown as error:
            logger.warning("no ack", operation=waiter.command.operation, error=str(error))
        except Exception:
            logger.exception("no ack", operation=waiter.command.operation)
        else:
            metrics.ACKNOWLEDGE_SECONDS.observe(time.monotonic() - begun)
            phases.acknowledged(appended.time)
            self._clock.observe(sent_at, appended.time)
            if not waiter.appended.done():
                waiter.appended.set_result(appended)

    async def _answer(
        self, waiter: Waiter, destination: Destination, *, at_once: bool
    ) -> Settled | Accepted:
        """Wait for the final outcome; after a while, acceptance is enough."""
        if not at_once:
            await waiter.until_settled(self._settings.answer_within)
            if waiter.settled.done():
                return waiter.settled.result()
        waited = 0.0 if at_once else self._settings.answer_within
        accepting = asyncio.create_task(self._accept(waiter, destination))
        try:
            awaited: set[asyncio.Future[Any]] = {waiter.settled, waiter.debited, accepting}
            await asyncio.wait(
                awaited,
                timeout=max(self._settings.unknown_after - waited, 0.0),
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            accepting.cancel()
        if waiter.settled.done() and not (at_once and waiter.settled.exception() is None):
            return waiter.settled.result()
        certain = accepting.done() and not accepting.cancelled() and accepting.exception() is None
        if waiter.settled.done() or waiter.debited.done() or certain:
            appended = waiter.appended.result() if waiter.appended.done() else None
            return Accepted(waiter.command.operation, appended, waiter.debited.done())
        raise Unknown(waiter.command.operation)

    async def _accept(self, waiter: Waiter, destination: Destination) -> None:
        """Return once the command is in the log and nothing sent after it can overtake it."""
        await asyncio.shield(waiter.appended)
        await self._gate.until_order_is_certain(waiter.command.account, destination.generation)
