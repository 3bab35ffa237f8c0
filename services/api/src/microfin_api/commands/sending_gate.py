"""The one place that decides whether, where and by which routing a command may be sent now.

While a growth is being prepared, commands for the accounts that it will move are held here; all
others pass. A command that finds its shard's lease ended waits for the next renewal.
"""

import asyncio
import contextlib
import time
from typing import Final

import msgspec

from microfin.ledger.lease import HOLD_SECONDS
from microfin.ledger.routing import partition_of
from microfin_api import metrics
from microfin_api.commands.leases import Lease, Leases, ShardLease
from microfin_api.http.problems import Problem

HELD_LIMIT: Final = 5_000
"""Commands that one process may hold; more are refused as overload."""

LEASE_WAIT_SECONDS: Final = 5.0
"""Seconds that a command may wait for a late lease."""

WAITING_LIMIT: Final = 250
"""Commands of one process that may wait for late leases: a shard that does not answer must not use
up the requests that MICROFIN_REQUEST_LIMIT allows."""


class Destination(msgspec.Struct, frozen=True):
    """Where a command goes, the routing generation that says so, and until when (monotonic)."""

    partition: int
    generation: int
    expires: float


class SendingGate:
    """Lets commands through while this process has the lease of their shard."""

    def __init__(self, leases: Leases) -> None:
        self._leases = leases
        self._held = 0
        self._waiting = 0

    async def pass_through(self, account: str) -> Destination:
        """Return where a command for `account` must now be sent; wait while it is held.

        Raises `Problem` if this process may not send. Then nothing has been done.
        """
        shard = self._leases.of_account(account)
        lease = shard.valid() or await self._until_renewed(shard)
        if lease.moves(account):
            lease = await self._hold(shard, account)
        return Destination(
            partition_of(account, lease.routing.partition_count),
            lease.routing.generation,
            lease.expires,
        )

    def reads(self, version: int, account: str) -> bool:
        """Return whether all workers that may get a command for `account` read this version."""
        lease = self._leases.of_account(account).latest
        return version <= (1 if lease is None else lease.wire_version)

    def still_leads_to(self, account: str, destination: Destination) -> bool:
        """Return whether a command that has passed for `destination` may be sent there now.

        This process may have stood still since. Then the newest lease must lead there too.
        """
        if time.monotonic() < destination.expires:
            return True
        lease = self._leases.of_account(account).valid()
        return (
            lease is not None
            and lease.routing.generation == destination.generation
            and not lease.moves(account)
        )

    async def _until_renewed(self, shard: ShardLease) -> Lease:
        """Return the lease as soon as it is valid. Raises `Problem` if that takes too long.

        A late renewal does not show that the database is away: the machine may be busy, or this
        process may have stood still. A renewal that is refused meanwhile does.
        """
        if self._waiting >= WAITING_LIMIT:
            raise _no_lease()
        self._waiting += 1
        metrics.WAITING_FOR_LEASE.set(self._waiting)
        refusals = shard.refusals
        try:
            async with asyncio.timeout(LEASE_WAIT_SECONDS):
                while True:
                    attempts = shard.attempts
                    if (lease := shard.valid()) is not None:
                        return lease
                    if shard.refusals != refusals:
                        raise _no_lease()
                    await shard.attempted(after=attempts)
        except TimeoutError:
            raise _no_lease() from None
        finally:
            self._waiting -= 1
            metrics.WAITING_FOR_LEASE.set(self._waiting)

    async def _hold(self, shard: ShardLease, account: str) -> Lease:
        """Wait until no growth is about to move `account`, or one has been for too long."""
        if self._held >= HELD_LIMIT:
            raise Problem("overloaded", "Too many commands wait for the partitions to grow.")
        self._held += 1
        metrics.HELD.set(self._held)
        try:
            while (lease := shard.valid() or await self._until_renewed(shard)).moves(account):
                left = HOLD_SECONDS - shard.intent_age
                if left <= 0:
                    break
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(shard.sent_after(lease.sent), min(left, 1.0))
            return lease
        finally:
            self._held -= 1
            metrics.HELD.set(self._held)

    async def until_order_is_certain(self, account: str, generation: int) -> None:
        """Return once a command that the broker has just acknowledged is certain to keep its place.

        That is: a lease renewal that began after this call shows that `generation` is still the
        routing, and that no growth is about to move `account`. Never returns if that cannot be
        shown any more, so call it with a deadline.
        """
        lease = self._leases.of_account(account)
        moment = time.monotonic()
        while True:
            renewed = await lease.sent_after(moment)
            if renewed.routing.generation == generation and not renewed.moves(account):
                return
            moment = renewed.sent


def _no_lease() -> Problem:
    return Problem("unavailable", "The database does not answer. Nothing was done.")
