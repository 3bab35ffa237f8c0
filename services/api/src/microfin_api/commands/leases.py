"""Leases: a process that has one may send commands to a shard, and knows the shard's routing.

Every 250 ms (450 ms while nobody sends) a small write to each shard, synchronously committed,
renews this process's lease and returns `routing`. A read could come from an isolated old primary; a
committed write cannot. A lease counts from when its renewal was sent. So a growth can write its
intent, wait for a second, and be sure that each process which still sends has read it
(`microfin.ledger.lease`).

Renewals may run on the event loop of another thread than the lease's users (`lease_thread`). Then
the newest lease is handed over by one assignment, and its users are woken on their own loop.
"""

import asyncio
import contextlib
import math
import time
from collections.abc import Callable
from typing import Final

import msgspec
import structlog

from microfin.ledger.lease import IDLE_RENEWAL_SECONDS, LEASE_SECONDS, RENEWAL_SECONDS
from microfin.ledger.routing import Routing, partition_of, shard_of_account
from microfin.postgres.connections import Connection, Pool, connect_pool
from microfin.postgres.shards import ShardPlace
from microfin.process.settings import ApiSettings
from microfin.process.silence import Silence

logger = structlog.get_logger(__name__)

_LEAST_PAUSE: Final = 0.025  # between renewals that waiting answers ask for
_FORGET_EVERY: Final = 600.0
_IDLE_AFTER: Final = 5.0  # seconds after the last use of a lease
_AT_ONCE: Final = 0.1  # seconds within which a renewal must be answered, to be rare

_RENEW = """
INSERT INTO leases (instance, generation, renewed_at)
SELECT $1, generation, clock_timestamp() FROM routing
ON CONFLICT (instance)
DO UPDATE SET generation = excluded.generation, renewed_at = excluded.renewed_at
RETURNING (
    SELECT row_to_json(found)::text FROM (
        SELECT routing.*, (
            SELECT min(CASE WHEN wire_epoch = epoch THEN wire_version ELSE 1 END) FROM partitions
        ) AS wire_version
        FROM routing
    ) AS found)
"""

_FORGET = """
DELETE FROM leases WHERE instance IN (
    SELECT instance FROM leases WHERE renewed_at < clock_timestamp() - interval '1 hour' LIMIT 1000)
"""


class Lease(msgspec.Struct, frozen=True):
    """One renewal: when it was sent (monotonic seconds) and the routing that it returned.

    `intended_count` is the number of partitions that a growth is preparing, None if there is none.
    `wire_version` is the newest that all workers of the shard read.
    """

    sent: float
    routing: Routing
    intended_count: int | None
    wire_version: int

    @property
    def expires(self) -> float:
        """Until when (monotonic seconds) commands may be sent by it."""
        return self.sent + LEASE_SECONDS

    def moves(self, account: str) -> bool:
        """Return whether the growth under way will move `account` to another partition."""
        return self.intended_count is not None and (
            partition_of(account, self.intended_count)
            != partition_of(account, self.routing.partition_count)
        )


class _RoutingRow(msgspec.Struct, frozen=True):
    """What a renewal needs of the one row of `routing`."""

    shard: int
    shards: int
    generation: int
    partition_count: int
    intended_generation: int | None
    intended_partition_count: int | None
    wire_version: int | None


class ShardLease:
    """The lease on one shard, renewed from `start` to `stop`.

    `fault` is empty or says why the last renewal failed. `refusals` counts renewals that failed
    otherwise than by a timeout: the database or its pooler refused them. `attempts` counts all that
    have ended.
    """

    def __init__(self, instance: str, settings: ApiSettings, shard: int) -> None:
        self._instance = instance
        self._settings = settings
        self._shard = shard
        self._place = ShardPlace(shard, len(settings.database_urls))
        self._pool: Pool | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._last_renewal: asyncio.Task[Lease] | None = None
        self._own_loop: asyncio.AbstractEventLoop | None = None
        self._users_loop: asyncio.AbstractEventLoop | None = None
        self._wanted_event = asyncio.Event()  # on the loop that renews
        self._renewal_wanted = False
        self._attempted = asyncio.Event()  # on the loop of the lease's users
        self._waiting = 0  # users, for an attempt
        self.attempts = 0
        self._intent_since: float | None = None
        self._returned = False
        self._used = -math.inf  # when somebody sent by the lease, or tried to
        self.silence = Silence("PostgreSQL", IDLE_RENEWAL_SECONDS, shard)
        self.on_return: Callable[[], None] = _nothing
        """What the lease's users do, on their loop, when the shard answers after a long silence."""
        self.fault = f"shard {shard}: none yet"
        self._failed_by = ""
        self.refusals = 0
        self.latest: Lease | None = None

    @property
    def intent_age(self) -> float:
        """Seconds since a growth that is still being prepared was first seen; 0 without one."""
        return 0.0 if self._intent_since is None else time.monotonic() - self._intent_since

    async def start(self, users_loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Start renewing, on this loop; returns after the first attempt.

        `users_loop` is the loop of the lease's users, if it is another one.
        """
        self._own_loop = asyncio.get_running_loop()
        self._users_loop = users_loop
        self._pool = await self._connect()
        await self._renew()
        self._renewing = asyncio.create_task(self._renew_for_ever())

    async def stop(self) -> None:
        """Stop renewing and release the lease.

        A renewal that is under way ends first, or it would bring the lease back.
        """
        if self._renewing is not None:
            self._renewing.cancel()
        if self._last_renewal is not None:
            await asyncio.wait({self._last_renewal}, timeout=LEASE_SECONDS)
        self.latest = None
        with contextlib.suppress(Exception):
            async with asyncio.timeout(LEASE_SECONDS):
                await self._execute("DELETE FROM leases WHERE instance = $1", self._instance)
        if self._pool is not None:
            self._pool.terminate()

    async def _connect(self) -> Pool:
        # A separate pool: slow queries of others must not cost the lease.
        settings = self._settings.model_copy(
            update={"database_connections": 1, "database_timeout": LEASE_SECONDS}
        )
        url = self._settings.database_urls[self._shard]
        return await connect_pool(url, settings, place=self._place)

    def valid(self) -> Lease | None:
        """Return the lease if commands may be sent by it now. Who asks is about to send."""
        self._used = now = time.monotonic()
        lease = self.latest
        return lease if lease is not None and now < lease.expires else None

    @property
    def lasts(self) -> bool:
        """Whether commands may be sent now; who asks sends none."""
        lease = self.latest
        return lease is not None and time.monotonic() < lease.expires

    async def sent_after(self, moment: float) -> Lease:
        """Return a lease whose renewal was sent after `moment` (monotonic). Call with a deadline.

        All callers that wait share a renewal, which is sent a little sooner for them.
        """
        while True:
            attempts = self.attempts
            if (lease := self.latest) is not None and lease.sent > moment:
                return lease
            self._ask_for_renewal()
            await self.attempted(after=attempts)

    async def attempted(self, after: int | None = None) -> None:
        """Return after the next attempt to renew, however it ends. Call with a deadline.

        Returns at once if there have been more attempts than the number `after`, which the caller
        has read from `attempts` before it looked at the lease.
        """
        self._waiting += 1  # before `attempts` is read: `_notify_users` does it the other way round
        try:
            if after is None or after == self.attempts:
                await self._attempted.wait()
        finally:
            self._waiting -= 1

    def _ask_for_renewal(self) -> None:
        """Ask for a renewal soon. A caller that finds it asked for already may rely on that: the
        request is forgotten before the renewal is sent."""
        if self._renewal_wanted:
            return
        self._renewal_wanted = True
        if self._users_loop is None:
            self._wanted_event.set()
        elif self._own_loop is not None:
            with contextlib.suppress(RuntimeError):  # that loop has ended: nothing is renewed
                self._own_loop.call_soon_threadsafe(self._wanted_event.set)

    def _notify_users(self) -> None:
        """Wake the users that wait for an attempt; a loop on which nobody waits sleeps on."""
        self.attempts += 1
        if self._users_loop is None:
            self._wake()
        elif self._waiting or self._returned:
            with contextlib.suppress(RuntimeError):  # that loop has ended: nobody waits
                self._users_loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        self._attempted.set()
        self._attempted = asyncio.Event()
        if self._returned:
            self._returned = False
            self.on_return()

    async def _renew_for_ever(self) -> None:
        next_cleaning = time.monotonic() + _FORGET_EVERY
        took = 0.0
        while True:
            await self._until_due(took)
            self._wanted_event.clear()
            self._renewal_wanted = False
            began = time.monotonic()
            await self._renew()
            took = time.monotonic() - began
            if time.monotonic() > next_cleaning:
                next_cleaning = time.monotonic() + _FORGET_EVERY
                with contextlib.suppress(Exception):
                    await self._execute(_FORGET)

    async def _until_due(self, took: float) -> None:
        """Wait for the next renewal's time, or until somebody wants it. The last one took `took`
        seconds."""
        ended = time.monotonic()
        idle = took < _AT_ONCE and ended - self._used > _IDLE_AFTER
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(IDLE_RENEWAL_SECONDS if idle else RENEWAL_SECONDS):
                await self._wanted_event.wait()
        if (early := ended + _LEAST_PAUSE - time.monotonic()) > 0:
            await asyncio.sleep(early)

    async def _renew(self) -> None:
        sent = time.monotonic()
        self.silence.ask()
        renewal = self._last_renewal = asyncio.create_task(self._renewal(sent))
        await asyncio.wait({renewal}, timeout=LEASE_SECONDS)
        if renewal.done() and renewal.exception() is None:
            self._accept(renewal.result())
        else:
            await self._fail(renewal)
        self._notify_users()

    def _accept(self, lease: Lease) -> None:
        if self.fault and self.latest is not None:
            logger.info("lease renewed again", shard=self._shard)
        self._returned = self._returned or self.silence.long
        self.silence.answered()
        self.fault = ""
        self.latest = lease
        if lease.intended_count is None:
            self._intent_since = None
        elif self._intent_since is None:
            self._intent_since = time.monotonic()

    async def _fail(self, renewal: asyncio.Task[Lease]) -> None:
        error = (
            renewal.exception() if renewal.done() else TimeoutError("PostgreSQL does not answer")
        )
        # Also the first one, and another kind: a database that answers may refuse this release.
        if not self.fault or type(error).__name__ != self._failed_by:
            logger.warning("lease not renewed", shard=self._shard, error=repr(error))
        self._failed_by = type(error).__name__
        self.fault = f"shard {self._shard}: {error or type(error).__name__}"
        if not isinstance(error, TimeoutError):
            self.refusals += 1
        # Closing the connection ends everything that still waits on it, however it hangs.
        if self._pool is not None:
            self._pool.terminate()
        renewal.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        self._pool = await self._connect()

    async def _renewal(self, sent: float) -> Lease:
        async with self._acquire() as connection:
            row = await connection.fetch_first(_RENEW, self._instance)
        if row is None:
            raise self._place.not_migrated()
        found = msgspec.json.decode(row[0], type=_RoutingRow)
        self._place.check((found.shard, found.shards))
        return Lease(
            sent,
            Routing(found.generation, found.partition_count),
            found.intended_partition_count if found.intended_generation else None,
            found.wire_version or 1,
        )

    async def _execute(self, statement: str, *arguments: str) -> None:
        async with self._acquire() as connection, connection.transaction():
            await connection.execute(statement, *arguments)

    def _acquire(self) -> Connection:
        if self._pool is None:
            raise RuntimeError("start() was not called")
        return self._pool.acquire()


def _nothing() -> None:
    """Do nothing."""


class Leases:
    """This process's leases on all shards."""

    def __init__(self, instance: str, settings: ApiSettings) -> None:
        self._shards = [
            ShardLease(instance, settings, shard) for shard in range(len(settings.database_urls))
        ]

    async def start(self, users_loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Acquire all leases, or begin to try. `users_loop` is as in `ShardLease.start`."""
        await asyncio.gather(*(lease.start(users_loop) for lease in self._shards))

    async def stop(self) -> None:
        """Release all leases."""
        await asyncio.gather(*(lease.stop() for lease in self._shards))

    def of_account(self, account: str) -> ShardLease:
        """Return the lease on the shard of `account`."""
        return self._shards[shard_of_account(account, len(self._shards))]

    def of_shard(self, shard: int) -> ShardLease:
        """Return the lease on one shard."""
        return self._shards[shard]

    @property
    def shards(self) -> int:
        """The number of shards."""
        return len(self._shards)

    def faults(self) -> list[str]:
        """Return why this process may not send, one line for each shard without a lease."""
        return [
            f"no lease: {lease.fault or f'shard {shard}: PostgreSQL has not renewed it in time'}"
            for shard, lease in enumerate(self._shards)
            if not lease.lasts
        ]
