"""Connections to the shards' PostgreSQL, usually through PgBouncer in transaction mode.

Behind a pooler a connection has no session state: every call stands inside a transaction or is one
statement without parameters, which is a transaction by itself, and no statement is prepared by name
unless the settings say that the pooler knows how.
"""

import contextlib
from collections.abc import AsyncIterator
from typing import Any, Final
from urllib.parse import urlsplit

import asyncpg
import structlog

from microfin.postgres.shards import SHARD, ShardPlace
from microfin.process.settings import CommonSettings

logger = structlog.get_logger(__name__)

Connection = Any
"""An asyncpg connection; asyncpg ships no types."""

Pool = Any
"""An asyncpg pool; asyncpg ships no types."""

DATABASE_ERRORS: Final = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)
"""All that a call to a database may raise."""

# asyncpg asks for 'utf-8', quotes included, and PostgreSQL reports UTF8: PgBouncer takes that for a
# difference and sends a SET before each transaction. What is said later in the start-up counts.
_ENCODING: Final = {"client_encoding": "UTF8"}


class _PooledConnection(asyncpg.Connection):  # type: ignore[misc]
    def get_reset_query(self) -> str:
        """Reset nothing: a transaction leaves nothing behind, and a reset costs a round trip."""
        return ""


async def connect_pool(
    url: str, settings: CommonSettings, *, least: int = 0, place: ShardPlace | None = None
) -> Pool:
    """Return a pool of connections to one database. Connects as they are needed, beyond `least`.

    Each connection is made with the user and password that the settings' file has then, and with
    the certificates that the files in the URL hold then. With `place`, it is asked first which
    shard it leads to: what takes one from the pool raises `WrongShard` where it is not that one,
    `NotMigrated` where it is none yet.
    """

    async def connect(_: str, **options: Any) -> Connection:
        return await asyncpg.connect(_renewed(url, settings), **options)

    async def compare(connection: Connection) -> None:
        if place is not None:
            await check_shard(connection, place)

    return await asyncpg.create_pool(
        url,
        connect=connect,
        init=compare,
        min_size=least,
        max_size=settings.database_connections,
        max_inactive_connection_lifetime=300,
        statement_cache_size=settings.database_statement_cache,
        command_timeout=settings.database_timeout,
        timeout=settings.database_timeout,
        connection_class=_PooledConnection,
        server_settings=_ENCODING,
        ssl=None if "sslmode=" in url else False,
    )


def _renewed(url: str, settings: CommonSettings) -> str:
    """Return `url` as it is now, where nothing has changed but how one is let in.

    Another place may be another database: which one a process works on changes by a restart alone.
    """
    before = settings.databases.split()
    if url not in before:
        return url
    now = settings.renewed_urls("databases")
    if len(now) == len(before):
        renewed = now[before.index(url)]
        if _place(renewed) == _place(url):
            return renewed
    logger.warning("MICROFIN_DATABASES leads elsewhere: restart to use it, the old one is kept")
    return url


def _place(url: str) -> tuple[str, str, str]:
    """Return where a URL leads, whoever asks."""
    parts = urlsplit(url)
    return parts.netloc.rpartition("@")[2], parts.path, parts.query


async def connect_shards(urls: list[str], settings: CommonSettings) -> list[Pool]:
    """Return a pool for each shard, shard 0 first."""
    return [
        await connect_pool(url, settings, place=ShardPlace(number, len(urls)))
        for number, url in enumerate(urls)
    ]


async def check_shard(connection: Connection, place: ShardPlace) -> None:
    """Raise `WrongShard` or `NotMigrated` unless the database is the shard of `place`."""
    try:
        async with connection.transaction():
            place.check(await connection.fetchrow(SHARD))
    except asyncpg.UndefinedTableError as error:
        raise place.not_migrated() from error


@contextlib.asynccontextmanager
async def read_snapshot(pool: Pool) -> AsyncIterator[Connection]:
    """Give a connection inside a read-only transaction in which all reads see one moment."""
    async with (
        pool.acquire() as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        yield connection


def is_connection_loss(error: BaseException) -> bool:
    """Tell whether `error` means that the database could not be reached or is changing hands.

    Among them SQLSTATE 25006 (a demoted primary is read-only), class 57 (shut down, cancelled) and
    class 08 (PgBouncer's way to say that the server is gone). asyncpg's internal error is what a
    connection raises that was told of the server's end and has not been hung up yet.
    """
    if isinstance(error, OSError | TimeoutError | asyncpg.InterfaceError):
        return True
    if isinstance(error, asyncpg.InternalClientError):
        return True
    state = getattr(error, "sqlstate", None) or ""
    return state == "25006" or state[:2] in ("08", "57", "53", "40", "55") or state == "25P03"


def is_data_error(error: BaseException) -> bool:
    """Tell whether the database refused the data itself (SQLSTATE class 22 or 23)."""
    state = getattr(error, "sqlstate", None) or ""
    return state[:2] in ("22", "23")
