"""The one place that decides whether, where and by which routing a command may be sent now.

While a growth is being prepared, commands for the accounts that it will move are held here; those
for all others pass.
"""

import asyncio
import contextlib
import time
from typing import Final

import msgspec

from microfin.routing import partition_of
from microfin_api import metrics
from microfin_api.leases import Lease, Leases, ShardLease
from microfin_api.problems import Problem

HOLD_SECONDS: Final = 10.0
"""Seconds after which a growth that is neither activated nor withdrawn holds nothing any more."""

HELD_LIMIT: Final = 5_000
"""Commands that one process holds at most; more are refused as overload."""


class Destination(msgspec.Struct, frozen=True):
    """Where a command goes, and the routing generation that says so."""

    partition: int
    generation: int


class SendingGate:
    """Lets commands through for as long as this process holds the lease of their shard."""

    def __init__(self, leases: Leases) -> None:
        self._leases = leases
        self._held = 0

    async def pass_through(self, account: str) -> Destination:
        """Return where a command for `account` must be sent, at once; wait while it is held.

        Raises `Problem` where this process may not send: nothing has been done then.
        """
        shard = self._leases.of_account(account)
        lease = shard.valid()
        if lease is not None and lease.moves(account):
            lease = await self._hold(shard, account)
        if lease is None:
            raise Problem("unavailable", "The database does not answer. Nothing was done.")
        return Destination(
            partition_of(account, lease.routing.partition_count), lease.routing.generation
        )

    async def _hold(self, shard: ShardLease, account: str) -> Lease | None:
        """Wait until no growth is about to move `account`, or it has been for too long."""
        if self._held >= HELD_LIMIT:
            raise Problem("overloaded", "Too many commands wait for the partitions to grow.")
        self._held += 1
        metrics.HELD.set(self._held)
        try:
            while (lease := shard.valid()) is not None and lease.moves(account):
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
        """Return once a command that the broker has acknowledged just now keeps its place.

        That is: a lease renewal that began after now shows that `generation` is still the routing
        and that no growth is about to move `account`. Never returns where that cannot be shown any
        more, so wait with a deadline.
        """
        lease = self._leases.of_account(account)
        moment = time.monotonic()
        while True:
            renewed = await lease.sent_after(moment)
            if renewed.routing.generation == generation and not renewed.moves(account):
                return
            moment = renewed.sent
