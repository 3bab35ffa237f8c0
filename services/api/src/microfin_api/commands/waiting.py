"""Requests that wait for the outcome of their operation.

Each waits under its own id: two requests with one key must not wake each other. Replies come over
Redis and may be lost, so an operation that takes more than half a second is looked up in
PostgreSQL: one query per process, shard and tick, with growing, jittered pauses for each request,
so that overload does not feed itself.
"""

import asyncio
import contextlib
import itertools
import random
import time
from collections.abc import Sequence
from typing import Final

import msgspec
import structlog

from microfin.kafka.producer import Appended
from microfin.ledger.operation import Operation, Outcome, same_body
from microfin.ledger.routing import shard_of_account
from microfin.ledger.wire import Command, body_hash
from microfin.postgres import queries
from microfin.postgres.connections import Pool, is_connection_loss
from microfin.redis.guarded import GuardedRedis
from microfin.redis.replies import Heard, Reply, channel_of, read_message, reply_address
from microfin.redis.seal import Seal
from microfin_api import metrics
from microfin_api.http.problems import Problem

logger = structlog.get_logger(__name__)

_TICK_SECONDS: Final = 0.1
_GROWTH: Final = 1.6
_LONGEST_PAUSE: Final = 5.0
_STOP_SECONDS: Final = 1.0


class Settled(msgspec.Struct, frozen=True):
    """The final answer to a request. `replayed`: an earlier request had decided it."""

    operation: Operation
    replayed: bool


class Waiter:
    """One waiting request: what it sent, and what it has learned so far."""

    def __init__(self, command: Command, shards: Sequence[int], look_up_after: float) -> None:
        loop = asyncio.get_running_loop()
        self.command = command
        self.shards = shards
        self.appended: asyncio.Future[Appended] = loop.create_future()
        self.settled: asyncio.Future[Settled] = loop.create_future()
        self.settled_at = 0.0  # when `settled` was set (monotonic); its request continues later
        self.debited: asyncio.Future[None] = loop.create_future()
        self._waited: asyncio.Future[None] = loop.create_future()
        self.outcomes: dict[str, Outcome] = {}
        self.pauses = dict.fromkeys(shards, look_up_after)
        self.due = dict.fromkeys(shards, time.monotonic() + look_up_after)

    async def until_settled(self, seconds: float) -> None:
        """Return when `settled` is done, or after `seconds`.

        Nearly every request waits here. `asyncio.wait` would do the same for three times the price.
        """
        deadline = asyncio.get_running_loop().call_later(seconds, self._stop_waiting)
        try:
            await self._waited
        finally:
            deadline.cancel()

    def _stop_waiting(self) -> None:
        if not self._waited.done():
            self._waited.set_result(None)

    def fail(self, problem: Problem) -> None:
        """End the wait with a problem."""
        if not self.settled.done():
            self.settled.set_exception(problem)
            self._stop_waiting()

    def settle(self, operation: Operation, *, replayed: bool) -> None:
        """End the wait with the operation's final state."""
        if not self.settled.done():
            self.settled_at = time.monotonic()
            self.settled.set_result(Settled(operation, replayed))
            self._stop_waiting()

    def hear(self, reply: Reply, *, proven: bool) -> None:
        """Process a reply. One of `in_transit`, or one that is not proven, makes the next look-up
        due."""
        if reply.operation.operation != self.command.operation:
            return
        if not proven or not (reply.refused or reply.operation.final):
            self.due = dict.fromkeys(self.shards, 0.0)
        elif reply.refused:
            self.fail(Problem("key_reused"))
        else:
            self.settle(reply.operation, replayed=reply.replayed)

    def postpone(self, shard: int) -> None:
        """Set the time of the next look-up on `shard`."""
        self.pauses[shard] = min(self.pauses[shard] * _GROWTH, _LONGEST_PAUSE)
        jitter = random.uniform(0.8, 1.2)  # noqa: S311 - not for secrets
        self.due[shard] = time.monotonic() + self.pauses[shard] * jitter

    def learn(self, outcome: Outcome) -> None:
        """Process an outcome from a database. Outcomes never change, so they add up."""
        self.outcomes[outcome.leg] = outcome
        found = queries.combine(self.outcomes.values())[outcome.operation]
        if found is None:
            return
        if not same_body(found.request, body_hash(self.command)):
            self.fail(Problem("key_reused"))
        elif found.operation.final:
            self.settle(found.operation, replayed=self._was_before(found.request))
        elif not self.debited.done():
            self.debited.set_result(None)

    def _was_before(self, request: Outcome) -> bool:
        return self.appended.done() and request.time < self.appended.result().time


class Waiting:
    """All waiting requests of this process, the channel of their replies, and their look-ups."""

    def __init__(
        self,
        instance: str,
        redis: GuardedRedis,
        pools: Sequence[Pool],
        look_up_after: float,
        seal: Seal | None,
    ) -> None:
        self._instance = instance
        self._seal = seal
        self._doubted = False
        self._redis = redis
        self._pools = pools
        self._look_up_after = look_up_after
        self._waiters: dict[str, Waiter] = {}
        self._numbers = itertools.count(1)
        self._some = asyncio.Event()
        self._hurry = [asyncio.Event() for _ in pools]
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Start to listen and to look up."""
        self._tasks = [asyncio.create_task(self._listen())]
        self._tasks += [
            asyncio.create_task(self._look_up_for_ever(shard)) for shard in range(len(self._pools))
        ]

    async def stop(self) -> None:
        """Stop listening and looking up."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_STOP_SECONDS)

    def reply_address(self) -> str:
        """Return a new address for one request's reply."""
        return reply_address(self._instance, format(next(self._numbers), "x"))

    def expect(self, command: Command) -> Waiter:
        """Wait for the reply to `command`, at the address in it, until `forget`."""
        waiter = Waiter(command, self._shards_of(command), self._look_up_after)
        self._waiters[_request_of(command)] = waiter
        self._some.set()
        return waiter

    def forget(self, waiter: Waiter) -> None:
        """Stop waiting."""
        self._waiters.pop(_request_of(waiter.command), None)
        for future in (waiter.appended, waiter.settled, waiter.debited):
            if future.done() and not future.cancelled():
                future.exception()  # asyncio would report an error that nobody asked for
            future.cancel()

    def _shards_of(self, command: Command) -> Sequence[int]:
        count = len(self._pools)
        # The shard of an `open` depends on which number is free; only its hold knows whom a capture
        # pays.
        if command.kind in ("open", "capture"):
            return range(count)
        return sorted(
            {
                shard_of_account(account, count)
                for account in (command.account, command.counterparty)
                if account
            }
        )

    async def _listen(self) -> None:
        channel = channel_of(self._instance)
        async for payload in self._redis.subscribe(channel):
            try:
                heard = read_message(channel, payload, self._seal)
            except msgspec.MsgspecError as error:
                logger.warning("unreadable reply", error=str(error))
                continue
            self._note_doubt(heard)
            for reply in heard.replies:
                self._hear(reply, proven=heard.proven)

    def _note_doubt(self, heard: Heard) -> None:
        """Log once that a reply came which no worker with our secret has sent."""
        if heard.proven or self._doubted or self._seal is None:
            return
        self._doubted = True
        logger.warning(
            "a reply without our seal: outcomes are looked up",
            advice="Does every worker have the same MICROFIN_CACHE_SECRET? Who else may publish "
            "in Redis?",
        )

    def _hear(self, reply: Reply, *, proven: bool) -> None:
        waiter = self._waiters.get(reply.request)
        if waiter is None:
            return
        waiter.hear(reply, proven=proven)
        if not waiter.settled.done():
            for shard in waiter.shards:
                self._hurry[shard].set()

    async def _look_up_for_ever(self, shard: int) -> None:
        while True:
            if not self._waiters:
                self._some.clear()
                await self._some.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TICK_SECONDS):
                    await self._hurry[shard].wait()
            self._hurry[shard].clear()
            now = time.monotonic()
            due = [
                waiter
                for waiter in self._waiters.values()
                if not waiter.settled.done() and waiter.due.get(shard, now) < now
            ]
            if due:
                await self._look_up(shard, due)

    async def _look_up(self, shard: int, due: list[Waiter]) -> None:
        metrics.LOOK_UPS.labels(shard).inc(len(due))
        ids = list({waiter.command.operation for waiter in due})
        try:
            outcomes = await queries.legs(self._pools[shard], ids)
        except Exception as error:
            if not is_connection_loss(error):
                logger.exception("look-up failed", shard=shard)
            outcomes = []
        found: dict[str, list[Outcome]] = {}
        for outcome in outcomes:
            found.setdefault(outcome.operation, []).append(outcome)
        for waiter in due:
            for outcome in found.get(waiter.command.operation, ()):
                waiter.learn(outcome)
            waiter.postpone(shard)


def _request_of(command: Command) -> str:
    return command.reply.rpartition("/")[2]
