"""The databases that `microfin archive` works with: each shard, and beside it its archive."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Final

import asyncpg

from microfin.postgres.archives import ARCHIVE, IDENTITY, ArchivePlace
from microfin.postgres.connections import (
    Connection,
    check_shard,
    connect,
    end_when_the_server_is_gone,
)
from microfin.postgres.shards import ShardPlace

_CONNECT_TIMEOUT: Final = 10

# Copying and comparing a volume takes as long as it takes.
_WITHOUT_LIMITS: Final = """
SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0; SET jit = off;
SET work_mem = '64MB'; SET max_parallel_workers_per_gather = 0
"""

_SCHEMA: Final = "SELECT version_num FROM alembic_version"

_MINE: Final = "SELECT pg_try_advisory_lock(hashtext('microfin archive'))"


class NotArchivable(Exception):
    """Nothing may be archived now; the message says why and what to do."""


class ShardAndArchive:
    """A shard's database and its archive, by one connection each, with the owner's role."""

    def __init__(self, number: int, ledger: Connection, archive: Connection) -> None:
        self.number = number
        self.ledger = ledger
        self.archive = archive


@contextlib.asynccontextmanager
async def open_databases(
    urls: Sequence[str], archive_urls: Sequence[str]
) -> AsyncIterator[list[ShardAndArchive]]:
    """Connect to all shards and their archives, shard 0 first, for this job alone.

    Raises `WrongShard`, `NotMigrated` or `WrongArchive` where a database is not what its place
    says, and `NotArchivable` where schemas differ or the same job is at work elsewhere.
    """
    if len(urls) != len(archive_urls):
        raise NotArchivable(
            f"There are {len(urls)} shards and {len(archive_urls)} archives: "
            "MICROFIN_ARCHIVES_DIRECT must list one database for each shard."
        )
    async with contextlib.AsyncExitStack() as stack:
        pairs = []
        for number, (url, archive_url) in enumerate(zip(urls, archive_urls, strict=True)):
            ledger = await stack.enter_async_context(_connected(url))
            await check_shard(ledger, ShardPlace(number, len(urls)))
            identity: str = await ledger.fetchval(IDENTITY)
            archive = await stack.enter_async_context(_connected(archive_url))
            await check_archive(archive, ArchivePlace(number, len(urls), identity))
            await _refuse_other_schema(number, ledger, archive)
            if not await ledger.fetchval(_MINE):
                raise NotArchivable(
                    f"Another `microfin archive` is at work on shard {number}: let it end."
                )
            pairs.append(ShardAndArchive(number, ledger, archive))
        yield pairs


async def check_archive(connection: Connection, place: ArchivePlace) -> None:
    """Raise `WrongArchive` unless the database is the archive of `place`."""
    try:
        place.check(await connection.fetchrow(ARCHIVE))
    except asyncpg.UndefinedTableError as error:
        raise place.not_prepared() from error


async def _refuse_other_schema(number: int, ledger: Connection, archive: Connection) -> None:
    here, there = await ledger.fetchval(_SCHEMA), await archive.fetchval(_SCHEMA)
    if here != there:
        raise NotArchivable(
            f"Shard {number} has schema {here}, its archive {there}: run `microfin migrate` and "
            "then `microfin migrate --archives` of this release."
        )


@contextlib.asynccontextmanager
async def _connected(url: str) -> AsyncIterator[Connection]:
    connection = await connect(url, statement_cache_size=0, timeout=_CONNECT_TIMEOUT)
    try:
        end_when_the_server_is_gone(connection)
        await connection.execute(_WITHOUT_LIMITS)
        yield connection
    finally:
        with contextlib.suppress(OSError, TimeoutError, asyncpg.PostgresError):
            await connection.close(timeout=2)
