"""One shard for the auditor: a connection, a snapshot, and rows that come in pieces."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar

import asyncpg

from microfin.postgres.archives import ARCHIVE, IDENTITY, ArchivePlace, WrongArchive
from microfin.postgres.connections import (
    Connection,
    check_shard,
    connect,
    end_when_the_server_is_gone,
)
from microfin.postgres.shards import ShardPlace

_PIECE: Final = 2_000
"""Rows fetched at a time from a cursor."""

_SECOND_WITHIN: Final = 2
"""Seconds in which a shard's second connection must begin; a pooler may have none to give."""

_CONNECT_TIMEOUT: Final = 10

# The roles' time limits are for processes that must answer. A snapshot of the auditor also waits
# for other shards.
_WITHOUT_LIMITS: Final = """
SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0;
SET LOCAL jit = off;
"""

# A volume that leaves for the archive is gone for older snapshots, too, which do not see yet that
# it is archived. So none may leave between the snapshot and the first look at these tables. The
# lock comes first: it takes no snapshot.
_NO_VOLUME_LEAVES: Final = "LOCK TABLE ONLY outcomes, ONLY entries IN ACCESS SHARE MODE"

# A full audit takes two backends of a shard: so much memory and no more of its cores. A hash table
# is twice as large as work_mem, what does not fit goes to the disk, and a query has at most three.
_BOUNDS: Final = """
SET LOCAL work_mem = '32MB'; SET LOCAL hash_mem_multiplier = 2;
SET LOCAL max_parallel_workers_per_gather = 0
"""

# Statistics may be older than the rows. Hash joins take time in proportion to the rows, whatever
# the planner believes.
_HASH_JOINS: Final = "SET LOCAL enable_mergejoin = {0}; SET LOCAL enable_nestloop = {0}"

# The planner does not know how little came after a watermark, and would read whole tables for it.
# All that a window needs has an index.
_BY_INDEX: Final = "SET LOCAL enable_seqscan = off; SET LOCAL enable_mergejoin = off"

Result = TypeVar("Result")


class AuditedShard:
    """A shard and a connection to it. Everything is read inside `snapshot`."""

    def __init__(
        self, number: int, connection: Connection, url: str, *, is_archive: bool = False
    ) -> None:
        self.number = number
        self.connection = connection
        self.url = url
        self.is_archive = is_archive
        self.archived_to: int | None = None
        """The newest of its volumes that is in its archive; known from `look_for_archive` on."""

    @property
    def has_archive(self) -> bool:
        """Whether old volumes are in its archive, and not here."""
        return self.archived_to is not None

    async def look_for_archive(self) -> None:
        """Ask, in the open snapshot, which volumes are in the archive."""
        self.archived_to = await self.connection.fetchval(
            "SELECT max(volume) FROM archived_volumes"
        )

    def say(self, what: str) -> str:
        """Return what was found, with the side on which it was found."""
        return f"in the archive: {what}" if self.is_archive else what

    @contextlib.asynccontextmanager
    async def snapshot(self) -> AsyncIterator[None]:
        """Open a read-only transaction; all its queries see the moment of the first one."""
        async with self.connection.transaction(isolation="repeatable_read", readonly=True):
            await self.connection.execute(_WITHOUT_LIMITS + _NO_VOLUME_LEAVES)
            yield

    async def bound(self) -> None:
        """Bound what the open snapshot's queries take of the server."""
        await self.connection.execute(_BOUNDS)

    async def read_by_index(self) -> None:
        """Let the open snapshot's queries find rows by index, however many they expect."""
        await self.connection.execute(_BY_INDEX)

    async def count_by_hash_joins(self, query: str) -> Any:
        """Return the row of what `query`, over whole tables, counts in the open snapshot."""
        await self.connection.execute(_HASH_JOINS.format("off"))
        counted = await self.connection.fetchrow(query)
        await self.connection.execute(_HASH_JOINS.format("DEFAULT"))
        return counted

    @contextlib.asynccontextmanager
    async def beside(self) -> AsyncIterator["AuditedShard | None"]:
        """Give the shard with a second connection that sees the open snapshot.

        Gives None where there is no second connection to be had.
        """
        name: str = await self.connection.fetchval("SELECT pg_export_snapshot()")
        async with contextlib.AsyncExitStack() as stack:
            second: AuditedShard | None = None
            with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                async with asyncio.timeout(_SECOND_WITHIN):
                    second = await stack.enter_async_context(self._with_snapshot(name))
            yield second

    @contextlib.asynccontextmanager
    async def _with_snapshot(self, name: str) -> AsyncIterator["AuditedShard"]:
        async with (
            _connected(self.url) as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            await connection.execute(f"SET TRANSACTION SNAPSHOT '{name}'")
            await connection.execute(_WITHOUT_LIMITS)
            beside = AuditedShard(self.number, connection, self.url, is_archive=self.is_archive)
            beside.archived_to = self.archived_to
            yield beside

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

    async def copy(
        self, query: str, take: Callable[[list[bytes]], None], *, separator: bytes
    ) -> None:
        """Give `take` the rows of `query` over whole tables, which has one column, in pieces.

        They are lines of PostgreSQL's COPY. Its escapes of backslashes are undone; the others that
        it has are of control characters, which a client's texts do not have. `separator` becomes
        U+0000, which no text of PostgreSQL holds.
        """
        rest = b""

        async def split(data: bytes) -> None:
            nonlocal rest
            *lines, rest = (rest + data.replace(separator, b"\0")).split(b"\n")
            if b"\\" in data:
                lines = [line.replace(b"\\\\", b"\\") for line in lines]
            take(lines)

        await self.connection.execute(_HASH_JOINS.format("off"))
        await self.connection.copy_from_query(query, output=split)
        await self.connection.execute(_HASH_JOINS.format("DEFAULT"))


@contextlib.asynccontextmanager
async def open_shards(urls: Sequence[str]) -> AsyncIterator[list[AuditedShard]]:
    """Connect to the shards at `urls`, shard 0 first.

    Raises `WrongShard` or `NotMigrated` unless these are all shards of a ledger, in their order.
    """
    async with contextlib.AsyncExitStack() as stack:
        shards = []
        for number, url in enumerate(urls):
            connection = await stack.enter_async_context(_connected(url))
            await check_shard(connection, ShardPlace(number, len(urls)))
            shards.append(AuditedShard(number, connection, url))
        yield shards


@contextlib.asynccontextmanager
async def open_archives(
    urls: Sequence[str], shards: Sequence[AuditedShard]
) -> AsyncIterator[list[AuditedShard]]:
    """Connect to the archives of `shards` at `urls`. Raises `WrongArchive` unless they are that."""
    if len(urls) != len(shards):
        raise WrongArchive(
            f"There are {len(shards)} shards and {len(urls)} archives: MICROFIN_ARCHIVES must list "
            "the archive of each shard."
        )
    async with contextlib.AsyncExitStack() as stack:
        archives = []
        for shard, url in zip(shards, urls, strict=True):
            place = ArchivePlace(
                shard.number, len(shards), await shard.connection.fetchval(IDENTITY)
            )
            connection = await stack.enter_async_context(_connected(url))
            try:
                place.check(await connection.fetchrow(ARCHIVE))
            except asyncpg.UndefinedTableError as error:
                raise place.not_prepared() from error
            archives.append(AuditedShard(shard.number, connection, url, is_archive=True))
        yield archives


@contextlib.asynccontextmanager
async def _connected(url: str) -> AsyncIterator[Connection]:
    connection = await connect(url, statement_cache_size=0, timeout=_CONNECT_TIMEOUT)
    try:
        end_when_the_server_is_gone(connection)
        yield connection
    finally:
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
