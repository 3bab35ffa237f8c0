"""Connections to the shards' PostgreSQL, usually through PgBouncer in transaction mode.

Behind a pooler a connection has no session state. Every call is inside a transaction, or is one
message, which is a transaction of its own: a statement without parameters, or one of
`microfin.postgres.one_round_trip`. No statement is prepared by name, unless the settings say that
the pooler supports it.
"""

import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import asyncpg
import structlog

from microfin.postgres.one_round_trip import OneRoundTrip
from microfin.postgres.shards import SHARD_AND_SCHEMA, ShardPlace
from microfin.process.database_tls import database_tls
from microfin.process.renewed_tls import renewed_context
from microfin.process.settings import CommonSettings
from microfin.process.tls_refusals import TlsRefused

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
"""All errors that a call to a database may raise."""

# asyncpg asks for 'utf-8', quotes included, and PostgreSQL reports UTF8. To PgBouncer these differ,
# so it would send a SET before each transaction. The later of two values in the start-up counts.
_ENCODING: Final = {"client_encoding": "UTF8"}


_TO_CANCEL: Final = 1.0  # seconds


class _PooledConnection(OneRoundTrip):
    def get_reset_query(self) -> str:
        """Reset nothing: a transaction leaves nothing behind, and a reset costs a round trip."""
        return ""


_NO_TLS: Final = "rejected SSL upgrade"  # asyncpg's words


async def connect(url: str, **options: Any) -> Connection:
    """Connect to the database of `url`, by TLS unless the URL says `sslmode=disable`.

    The certificates in the URL's files are read again if they have changed. Raises `TlsRefused`
    where either side refuses the other's certificate or the server has no TLS; `ValueError` where
    the URL does not say whether TLS is used.
    """
    files = database_tls(url)
    try:
        return await asyncpg.connect(url, **options, ssl=files and renewed_context(files))
    except ConnectionError as error:
        if _NO_TLS not in str(error):
            raise
        raise TlsRefused(
            f"{error}: let it speak TLS, or add sslmode=disable to its URL for a connection "
            "without TLS"
        ) from error


async def connect_pool(
    url: str,
    settings: CommonSettings,
    *,
    least: int = 0,
    most: int | None = None,
    place: ShardPlace | None = None,
    check: Callable[[Connection], Awaitable[None]] | None = None,
    connect_within: float | None = None,
) -> Pool:
    """Return a pool of connections to one database. Beyond `least` it connects on demand.

    It has at most `most` connections, or else as many as the settings say. A new connection may
    take `connect_within` seconds, or else as long as a call.

    Each new connection uses the current user and password of the settings' file, and the current
    certificates of the files in the URL. With `place`, each new connection first asks the database
    which shard it is: then acquiring one raises `WrongShard` where it is another shard, and
    `NotMigrated` where it is no ledger yet, or one with an older schema than this release needs.
    With `check`, acquiring raises what that raises for a new connection.
    """

    async def connect_anew(_: str, **options: Any) -> Connection:
        return await connect(_renewed(url, settings), **options)

    async def compare(connection: Connection) -> None:
        if place is not None:
            with _explained(place):
                place.check_for_work(await connection.fetch_first(SHARD_AND_SCHEMA))
        if check is not None:
            await check(connection)

    return await asyncpg.create_pool(
        url,
        connect=connect_anew,
        init=compare,
        min_size=least,
        max_size=most or settings.database_connections,
        max_inactive_connection_lifetime=300,
        statement_cache_size=settings.database_statement_cache,
        command_timeout=settings.database_timeout,
        timeout=connect_within or settings.database_timeout,
        connection_class=_PooledConnection,
        server_settings=_ENCODING,
    )


def _renewed(url: str, settings: CommonSettings) -> str:
    """Return the current form of `url`, if only user or password have changed.

    Another place may be another database: a process changes its database only by a restart.
    """
    setting: Literal["databases", "archives"] = "databases"
    if url in settings.archives.split():
        setting = "archives"
    urls: str = getattr(settings, setting)
    before = urls.split()
    if url not in before:
        return url
    now = settings.renewed_urls(setting)
    if len(now) == len(before):
        renewed = now[before.index(url)]
        if _place(renewed) == _place(url):
            return renewed
    logger.warning(
        f"MICROFIN_{setting.upper()} leads to another place: restart to use it, the old one is kept"
    )
    return url


def _place(url: str) -> tuple[str, str, str]:
    """Return where a URL leads, without user and password."""
    parts = urlsplit(url)
    return parts.netloc.rpartition("@")[2], parts.path, parts.query


def end_when_the_server_is_gone(connection: Connection) -> None:
    """Let the kernel end a connection whose server's machine is gone or cut off, in 15 seconds.

    A call without a deadline of its own would wait for ever.
    """
    transport = connection._transport  # noqa: SLF001 - asyncpg gives no other way to the socket
    found = transport.get_extra_info("socket")
    if found is None or found.family == socket.AF_UNIX:
        return
    for level, option, value in (
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 5),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 2),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
        (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 15_000),
    ):
        found.setsockopt(level, option, value)


async def connect_shards(urls: list[str], settings: CommonSettings) -> list[Pool]:
    """Return a pool for each shard, shard 0 first."""
    return [
        await connect_pool(url, settings, place=ShardPlace(number, len(urls)))
        for number, url in enumerate(urls)
    ]


async def check_shard(connection: Connection, place: ShardPlace) -> None:
    """Raise `WrongShard` or `NotMigrated` unless the database is the shard of `place`, and has a
    schema that this release can work with."""
    async with connection.transaction():
        await check_shard_within(connection, place)


async def check_shard_within(connection: Connection, place: ShardPlace) -> None:
    """Check as `check_shard` does, in the transaction that the caller has begun."""
    with _explained(place):
        place.check_for_work(await connection.fetchrow(SHARD_AND_SCHEMA))


@contextlib.contextmanager
def _explained(place: ShardPlace) -> Iterator[None]:
    """Say what it means that the database cannot be asked which shard it is."""
    try:
        yield
    except asyncpg.UndefinedTableError as error:
        raise place.not_migrated() from error
    except asyncpg.InsufficientPrivilegeError as error:
        # Every `microfin migrate` since then lets the processes read the schema's number.
        raise place.too_old("does not tell its schema") from error


@contextlib.asynccontextmanager
async def answering_connection(pool: Pool, *, transaction: bool) -> AsyncIterator[Connection]:
    """Give a connection, with `transaction` in one, which commits if the block raises nothing.

    When a call takes too long, asyncpg asks the database, by another connection, to cancel it,
    which frees its locks. Where nothing answers, that and the rollback would take a second
    deadline: a connection that does not roll back within a second is closed.
    """
    silence: TimeoutError | None = None
    async with pool.acquire() as connection:
        try:
            async with connection.transaction() if transaction else contextlib.nullcontext():
                try:
                    yield connection
                except TimeoutError as error:
                    silence = error
                    await _roll_back_or_close(connection)
                    raise
        except TimeoutError:
            await _roll_back_or_close(connection)
            raise
        except asyncpg.InterfaceError:
            if silence is not None:  # the transaction could not end, because nothing answers
                raise silence from None
            raise


async def _roll_back_or_close(connection: Connection) -> None:
    try:
        await connection.execute("ROLLBACK", timeout=_TO_CANCEL)
    except Exception:  # noqa: BLE001 - whatever it is, the connection is not used again
        with contextlib.suppress(asyncpg.InterfaceError):  # it is closed already
            connection.terminate()


@contextlib.asynccontextmanager
async def read_snapshot(pool: Pool) -> AsyncIterator[Connection]:
    """Give a connection in a read-only transaction in which all reads see the same moment."""
    async with (
        pool.acquire() as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        yield connection


def is_connection_loss(error: BaseException) -> bool:
    """Return whether `error` means that the database is unreachable or is failing over.

    Among these are SQLSTATE 25006 (a demoted primary is read-only), class 57 (shut down, cancelled)
    and class 08 (PgBouncer reports that the server is gone). A connection raises asyncpg's internal
    error between the server's report of its end and the end of the connection.
    """
    if isinstance(error, OSError | TimeoutError | asyncpg.InterfaceError):
        return True
    if isinstance(error, asyncpg.InternalClientError):
        return True
    state = getattr(error, "sqlstate", None) or ""
    return state == "25006" or state[:2] in ("08", "57", "53", "40", "55") or state == "25P03"


def is_data_error(error: BaseException) -> bool:
    """Return whether the database refused the data (SQLSTATE class 22 or 23)."""
    state = getattr(error, "sqlstate", None) or ""
    return state[:2] in ("22", "23")
