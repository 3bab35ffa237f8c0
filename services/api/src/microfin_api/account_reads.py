"""Reading accounts: many requests share one read, and no request gets an older one.

A client that has an answer may read the account next, by any API process, and must not see it as it
was before. So no copy of a balance is kept anywhere (ADR 46): each request is answered by a read
that began after the request had come. While a shard is being read, the requests that come gather
for the next read, so reads grow with load and cost less each.

Owner and currency of an account never change. These are remembered, for statements.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from microfin.ledger.routing import shard_of_account
from microfin.postgres import queries
from microfin.postgres.connections import Pool
from microfin.postgres.held_connection import HeldConnection
from microfin.postgres.queries import StoredAccount

MOST_AT_ONCE: Final = 500
"""Accounts in one read."""

PATIENCE: Final = 0.1
"""Seconds after which the next read begins although the one before it has not ended: a connection
that hangs must not stop the readers who would get another one."""

REMEMBERED: Final = 10_000
"""Accounts whose owner and currency one process remembers: about 3 MB."""

REMEMBERED_SECONDS: Final = 60.0
"""After a recovery that lost accounts nobody may find them for longer than this."""


class Identity(msgspec.Struct, frozen=True, gc=False):
    """What never changes of an account."""

    owner: str
    currency: str


class AccountReads:
    """Reads accounts from the shards of `pools`, the list that all who look something up share.

    It keeps a connection of each pool, unless a pool has only `connections` = 1: others need that.
    """

    def __init__(
        self,
        pools: Sequence[Pool],
        connections: int = 2,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._shards = [_ShardReads(pools, shard, connections > 1) for shard in range(len(pools))]
        self._identities: OrderedDict[str, tuple[Identity, float]] = OrderedDict()

    async def read(self, number: str) -> StoredAccount | None:
        """Return the account as its shard has it at a moment after this call, None without one.

        Raises the database's errors.
        """
        shard = self._shards[shard_of_account(number, len(self._shards))]
        found = await shard.read(number)
        if found is not None:
            self._remember(found)
        return found

    async def identity(self, number: str) -> Identity | None:
        """Return the account's owner and currency, None if there is no account of this number.

        Raises the database's errors.
        """
        known = self._identities.get(number)
        if known is not None and self._clock() < known[1]:
            return known[0]
        found = await self.read(number)
        return None if found is None else Identity(found.owner, found.currency)

    async def expire_connections(self, shard: int) -> None:
        """Read `shard` by none of the connections that are open now: they may all be dead."""
        await self._shards[shard].expire_connections()

    def _remember(self, found: StoredAccount) -> None:
        until = self._clock() + REMEMBERED_SECONDS
        self._identities[found.number] = Identity(found.owner, found.currency), until
        self._identities.move_to_end(found.number)
        if len(self._identities) > REMEMBERED:
            self._identities.popitem(last=False)


class _Gathered:
    """The accounts of one read. Once it has begun, nobody may join it."""

    __slots__ = ("numbers", "reading")

    def __init__(self) -> None:
        self.numbers: set[str] = set()
        self.reading: asyncio.Task[dict[str, StoredAccount]]


class _ShardReads:
    """The reads of one shard, usually one after another."""

    def __init__(self, pools: Sequence[Pool], shard: int, keeps: bool) -> None:
        self._pools = pools
        self._shard = shard
        self._keeps = keeps
        self._held: HeldConnection | None = None
        self._next: _Gathered | None = None
        self._latest: asyncio.Task[dict[str, StoredAccount]] | None = None

    async def read(self, number: str) -> StoredAccount | None:
        gathered = self._next
        if gathered is None or len(gathered.numbers) >= MOST_AT_ONCE:
            gathered = self._begin()
        gathered.numbers.add(number)
        # Shielded: others wait for the same read when this request ends early.
        return (await asyncio.shield(gathered.reading)).get(number)

    async def expire_connections(self) -> None:
        if self._held is not None:
            await self._held.expire_connections()

    def _begin(self) -> _Gathered:
        gathered = self._next = _Gathered()
        reading = gathered.reading = asyncio.create_task(self._read(gathered, self._latest))
        reading.add_done_callback(_consider_retrieved)
        self._latest = reading
        return gathered

    async def _read(
        self, gathered: _Gathered, before: asyncio.Task[dict[str, StoredAccount]] | None
    ) -> dict[str, StoredAccount]:
        if before is not None and not before.done():
            await asyncio.wait({before}, timeout=PATIENCE)
        if self._next is gathered:
            self._next = None  # who comes from now on takes the next read
        return await queries.accounts(self._connections(), list(gathered.numbers))

    def _connections(self) -> Pool:
        """Return what gives the connection that reads keep: to lend one costs more than to read."""
        pool = self._pools[self._shard]
        if not self._keeps:
            return pool
        if self._held is None or not self._held.lends_from(pool):
            self._held = HeldConnection(pool)
        return self._held


def _consider_retrieved(reading: asyncio.Task[dict[str, StoredAccount]]) -> None:
    """Let asyncio log no failure: all who waited for it have got it, or are gone."""
    if not reading.cancelled():
        reading.exception()
