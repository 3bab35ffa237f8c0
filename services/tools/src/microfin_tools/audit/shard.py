"""One shard for the auditor: a connection, a snapshot, and rows that come in pieces."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar

import asyncpg

from microfin.postgres.connections import (
    Connection,
    check_shard,
    connect,
    end_when_the_server_is_gone,
)
from microfin.postgres.shards import ShardPlace

_PIECE: Final = 2_000
"""Rows fetched at a time from a cursor."""

_CONNECT_TIMEOUT: Final = 10

# The roles' time limits are for processes that must answer. A snapshot of the auditor also waits
# for other shards.
_WITHOUT_LIMITS: Final = """
SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0;
SET LOCAL jit = off
"""

Result = TypeVar("Result")


class AuditedShard:
    """A shard and a connection to it. Everything is read inside `snapshot`."""

    def __init__(self, number: int, connection: Connection) -> None:
        self.number = number
        self.connection = connection

    @contextlib.asynccontextmanager
    async def snapshot(self) -> AsyncIterator[None]:
        """Open a read-only transaction; all its queries see the moment of the first one."""
        async with self.connection.transaction(isolation="repeatable_read", readonly=True):
            await self.connection.execute(_WITHOUT_LIMITS)
            yield

    async def stream(self, name: str, query: str, *arguments: Any) -> AsyncIterator[Any]:
        """Yield the rows of `query` through the cursor `name` of the open snapshot.

        It is a cursor of SQL, not of the protocol: the latter needs a named statement, which would
        stay in the pooler's server connection after the transaction.
        """
        await self.connection.execute(f"DECLARE {name} NO SCROLL CURSOR FOR {query}", *arguments)
        while rows := await self.connection.fetch(f"FETCH {_PIECE} FROM {name}"):
            for row in rows:
                yield row
        await self.connection.execute(f"CLOSE {name}")


@contextlib.asynccontextmanager
async def open_shards(urls: Sequence[str]) -> AsyncIterator[list[AuditedShard]]:
    """Connect to the shards at `urls`, shard 0 first.

    Raises `WrongShard` or `NotMigrated` unless these are all shards of a ledger, in their order.
    """
    async with contextlib.AsyncExitStack() as stack:
        shards = []
        for number, url in enumerate(urls):
            connection = await connect(url, statement_cache_size=0, timeout=_CONNECT_TIMEOUT)
            stack.push_async_callback(_close, connection)
            end_when_the_server_is_gone(connection)
            await check_shard(connection, ShardPlace(number, len(urls)))
            shards.append(AuditedShard(number, connection))
        yield shards


async def _close(connection: Connection) -> None:
    with contextlib.suppress(OSError, TimeoutError, asyncpg.PostgresError):
        await connection.close(timeout=2)


@contextlib.asynccontextmanager
async def snapshots(shards: Sequence[AuditedShard]) -> AsyncIterator[None]:
    """Open a snapshot on every shard."""
    async with contextlib.AsyncExitStack() as stack:
        for shard in shards:
            await stack.enter_async_context(shard.snapshot())
        yield


async def on_all(
    shards: Sequence[AuditedShard], work: Callable[[AuditedShard], Awaitable[Result]]
) -> list[Result]:
    """Do `work` on all shards at once and return the results in the order of the shards."""

    async def run(shard: AuditedShard) -> Result:
        return await work(shard)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(run(shard)) for shard in shards]
    return [task.result() for task in tasks]
