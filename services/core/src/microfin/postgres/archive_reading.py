"""Reading what a shard has archived: a database of its own for each shard, asked only when needed.

An archive never decides, and nobody waits for it who does not ask for old entries: it has a pool of
its own, a deadline, and a limit on those who wait. What it cannot say is never guessed: the error
says whether repeating helps.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import msgspec
import structlog

from microfin.postgres.archives import ARCHIVE, ArchivePlace, WrongArchive
from microfin.postgres.connections import (
    DATABASE_ERRORS,
    Connection,
    Pool,
    connect_pool,
    is_connection_loss,
)
from microfin.postgres.rows import MILLISECONDS
from microfin.process.settings import CommonSettings

logger = structlog.get_logger(__name__)

DEADLINES: Final = 2
"""How many times as long as one call a reader waits: for a connection and several calls."""

_CONNECTIONS: Final = 4  # of one process to one archive
_MOST_READERS: Final = 16  # at once, those included that wait for a connection

_ARCHIVED: Final = f"""
SELECT ARRAY(SELECT volume FROM archived_volumes) AS volumes,
    (SELECT {MILLISECONDS.format(column="max(last_at)")} FROM archived_volumes) AS until,
    (SELECT id::text FROM shard_identity) AS identity
"""  # noqa: S608 - the columns are ours

_ARCHIVED_OF: Final = f"""
SELECT CASE WHEN EXISTS (SELECT FROM archived_accounts WHERE number = $1) THEN volumes ELSE '{{}}'
    END AS volumes, until, identity
FROM ({_ARCHIVED}) AS archived
"""  # noqa: S608 - the columns are ours

# A pooler gives the statements of a transaction, and only these, to one server.
_BEGIN: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"

_LACKING: Final = """
SELECT volume FROM unnest($1::int[]) AS archived (volume)
WHERE volume NOT IN (SELECT volume FROM volumes) LIMIT 1
"""


class ArchiveFault(Exception):
    """Archived rows are wanted, and cannot be read."""


class ArchiveAway(ArchiveFault):
    """The archive does not answer in time, or has too many readers: repeating helps."""


class ArchiveUnusable(ArchiveFault):
    """There is no archive, or it is not the one that has the rows: repeating does not help."""


class Archived(msgspec.Struct, frozen=True):
    """What a shard says of its archive: the volumes in it, and the time of its last outcome.

    `until` is 0 where nothing is archived. `identity` is the shard's, which its archive names.
    """

    volumes: list[int]
    until: int
    identity: str


class Archive:
    """The archive of one shard. `fault` is empty, or says why the last question had no answer."""

    def __init__(self, shard: int, shards: int, url: str, settings: CommonSettings) -> None:
        self._shard = shard
        self._shards = shards
        self._url = url
        self._settings = settings
        self._deadline = DEADLINES * settings.database_timeout
        self._pool: Pool | None = None
        self._identity = ""
        self._readers = 0
        self.fault = ""

    async def start(self) -> None:
        """Make the pool; it connects when the archive is asked for the first time."""
        if self._url:
            self._pool = await connect_pool(
                self._url, self._settings, most=_CONNECTIONS, check=self._check
            )

    def terminate(self) -> None:
        """Close all connections at once."""
        if self._pool is not None:
            self._pool.terminate()

    @contextlib.asynccontextmanager
    async def reading(self, archived: Archived) -> AsyncIterator[Connection]:
        """Give a connection to the archive that has all that is `archived`.

        Raises `ArchiveFault` where that is impossible, or takes too long.
        """
        if self._readers >= _MOST_READERS:
            raise ArchiveAway(f"the archive of shard {self._shard} has too many readers")
        self._readers += 1
        try:
            async with self._connected(archived) as connection:
                yield connection
        except ArchiveFault as error:
            self._note(str(error))
            raise
        finally:
            self._readers -= 1
        self._note("")

    async def look(self, live: Pool) -> None:
        """Ask the archive as a reader does, so that `fault` is up to date."""
        with contextlib.suppress(ArchiveFault, *DATABASE_ERRORS):
            archived = await what_is_archived(live)
            if archived.volumes or self._url:
                async with self.reading(archived):
                    pass

    @contextlib.asynccontextmanager
    async def _connected(self, archived: Archived) -> AsyncIterator[Connection]:
        if self._pool is None:
            raise ArchiveUnusable(
                f"shard {self._shard} has archived volumes, and MICROFIN_ARCHIVES is not set"
            )
        self._identity = archived.identity
        try:
            async with (
                asyncio.timeout(self._deadline),
                self._pool.acquire() as connection,
            ):
                try:
                    await connection.execute(_BEGIN)
                    await self._require_all(connection, archived)
                    yield connection
                    await connection.execute("COMMIT")
                except BaseException:
                    connection.terminate()  # it may be waiting for an answer that never comes
                    raise
        except WrongArchive as error:
            raise ArchiveUnusable(str(error)) from error
        except DATABASE_ERRORS as error:
            raise self._explained(error) from error

    async def _require_all(self, connection: Connection, archived: Archived) -> None:
        lacking = await connection.fetch_first(_LACKING, archived.volumes)
        if lacking is not None:
            raise ArchiveUnusable(
                f"the archive of shard {self._shard} lacks volume {lacking[0]}: was it restored "
                "from an older backup?"
            )

    def _explained(self, error: BaseException) -> ArchiveFault:
        if is_connection_loss(error):
            return ArchiveAway(f"the archive of shard {self._shard} does not answer: {error!r}")
        return ArchiveUnusable(f"the archive of shard {self._shard} refuses: {error!r}")

    async def _check(self, connection: Connection) -> None:
        """Raise `WrongArchive` unless a new connection leads to the archive of this shard."""
        place = ArchivePlace(self._shard, self._shards, self._identity)
        place.check(await connection.fetch_first(ARCHIVE))

    def _note(self, fault: str) -> None:
        if bool(fault) != bool(self.fault):
            logger.warning(
                "archived rows cannot be read" if fault else "archived rows can be read again",
                shard=self._shard,
                fault=fault,
            )
        self.fault = fault


async def what_is_archived(live: Pool) -> Archived:
    """Return what the shard of `live` has archived by now."""
    async with live.acquire() as connection:
        return _archived(await connection.fetch_first(_ARCHIVED))


async def what_is_archived_of(live: Pool, number: str) -> Archived:
    """Return what may have rows of the account `number`: nothing if it was opened after all."""
    async with live.acquire() as connection:
        return _archived(await connection.fetch_first(_ARCHIVED_OF, number))


def _archived(row: Any) -> Archived:
    return Archived(row["volumes"], row["until"] or 0, row["identity"])


def archives_of(urls: Sequence[str], shards: int, settings: CommonSettings) -> list[Archive]:
    """Return the archive of each shard, not started yet.

    Raises `ValueError` where `urls` does not name one for each shard, or none at all.
    """
    urls = urls or [""] * shards
    if len(urls) != shards:
        raise ValueError(
            f"MICROFIN_ARCHIVES has {len(urls)} URLs, and there are {shards} shards: give one URL "
            "for each shard, in the shards' order, or none at all."
        )
    return [Archive(shard, shards, url, settings) for shard, url in enumerate(urls)]
