"""`microfin migrate`: bring every shard's schema up to date and create generation 1."""

import time
from collections.abc import Sequence
from pathlib import Path

import structlog
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, create_engine, make_url, text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.pool import NullPool

from microfin.postgres.archives import ARCHIVE, IDENTITY, ArchivePlace, WrongArchive
from microfin.postgres.shards import SHARD, ShardPlace, WrongShard
from microfin.process.database_tls import for_libpq

logger = structlog.get_logger(__name__)

_LOCK = 0x6D6963726F66696E  # "microfin": one migration at a time on one database
_TURN_SECONDS = 0.2

# Seconds and milliseconds. A statement may take hours; a server that is gone must not.
_DEADLINES = {
    "connect_timeout": 10,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}

# The cluster's identifier is the same on all its servers, and so is the oid of the database.
_IDENTITY = """
SELECT (SELECT system_identifier FROM pg_control_system()), oid FROM pg_database
WHERE datname = current_database()
"""

ROLES: dict[str, dict[str, str]] = {
    # A frozen worker's lock must not block its successor (docs/adr/0008-fencing.md).
    "microfin_worker": {
        "idle_in_transaction_session_timeout": "2s",
        "statement_timeout": "10s",
        "lock_timeout": "8s",
        "tcp_keepalives_idle": "5",
        "tcp_keepalives_interval": "2",
        "tcp_keepalives_count": "3",
    },
    "microfin_api": {
        "idle_in_transaction_session_timeout": "2s",
        "statement_timeout": "5s",
        "tcp_keepalives_idle": "5",
        "tcp_keepalives_interval": "2",
        "tcp_keepalives_count": "3",
    },
    "microfin_auditor": {
        "idle_in_transaction_session_timeout": "60s",
        "default_transaction_read_only": "off",
    },
}


class WrongEncoding(Exception):
    """A database is not encoded in UTF8."""


def migrate(urls: list[str], partitions: int) -> list[str]:
    """Bring the shards at `urls` (direct, owner's) to the newest revision, in order.

    A new shard gets routing generation 1 with `partitions`. Returns the revision of each shard.
    Raises `WrongShard` if a database belongs to another place in the list, or is in it twice, and
    `WrongEncoding` if one is not in UTF8, both before anything is written; and `ValueError` if
    `partitions` is not a positive multiple of the number of shards. Safe to run twice, even at the
    same time.
    """
    if partitions < 1 or partitions % len(urls):
        raise ValueError(
            f"--partitions must be a positive multiple of the {len(urls)} shards, not {partitions}."
        )
    places = [ShardPlace(shard, len(urls)) for shard in range(len(urls))]
    _check_databases(urls, places)
    return [_migrate_shard(url, place, partitions) for url, place in zip(urls, places, strict=True)]


def migrate_archives(urls: Sequence[str], archive_urls: Sequence[str]) -> list[str]:
    """Make the databases at `archive_urls` the archives of the shards at `urls`, in order.

    Both are direct and the owner's. Returns the revision of each archive. Raises `WrongShard` if a
    shard is at another's place, `WrongArchive` if a database is a shard, the archive of another
    shard, listed twice or not empty, and `NotMigrated` if a shard has not this release's schema;
    nothing is written to a database that is refused. Safe to run twice, even at the same time.
    """
    if len(urls) != len(archive_urls):
        raise WrongArchive(
            f"There are {len(urls)} shards and {len(archive_urls)} archives: "
            "MICROFIN_ARCHIVES_DIRECT must list one database for each shard."
        )
    places = []
    seen: dict[tuple[object, ...], str] = {}
    for shard, url in enumerate(urls):
        with _engine(url).connect() as connection:
            places.append(_archive_place(connection, ShardPlace(shard, len(urls))))
            seen[tuple(connection.execute(text(_IDENTITY)).one())] = f"shard {shard}"
    for place, url in zip(places, archive_urls, strict=True):
        with _engine(url).connect() as connection:
            _refuse_other_encodings(connection, place.number)
            identity = tuple(connection.execute(text(_IDENTITY)).one())
            if identity in seen:
                raise WrongArchive(
                    f"The database at place {place.number} of MICROFIN_ARCHIVES_DIRECT is "
                    f"{seen[identity]}: each archive needs a database of its own."
                )
            seen[identity] = f"also the archive of shard {place.number}"
            _refuse_if_used_otherwise(connection, place)
    return [_migrate_archive(url, place) for url, place in zip(archive_urls, places, strict=True)]


def _archive_place(connection: Connection, place: ShardPlace) -> ArchivePlace:
    """Return the place of the archive of the shard behind `connection`."""
    if connection.execute(text("SELECT to_regclass('shard_identity')")).scalar() is None:
        raise place.too_old("has none of the archive's tables")
    place.check(connection.execute(text(SHARD)).one_or_none())
    identity = str(connection.execute(text(IDENTITY)).scalar_one())
    return ArchivePlace(place.number, place.count, identity)


def _refuse_if_used_otherwise(connection: Connection, place: ArchivePlace) -> None:
    """Raise `WrongArchive` if a database is a shard, or the archive of another."""
    if connection.execute(text("SELECT to_regclass('routing')")).scalar() is None:
        return
    shard = connection.execute(text(SHARD)).one_or_none()
    if shard is not None:
        raise WrongArchive(
            f"The database at place {place.number} of MICROFIN_ARCHIVES_DIRECT is shard {shard[0]} "
            f"of {shard[1]} of a ledger: an archive needs a database of its own."
        )
    if connection.execute(text("SELECT to_regclass('archive')")).scalar() is not None:
        row = connection.execute(text(ARCHIVE)).one_or_none()
        if row is not None:
            place.check_owner(row)


def _migrate_archive(url: str, place: ArchivePlace) -> str:
    engine = _engine(url)
    with engine.connect() as connection:
        _wait_for_turn(connection)
        _ensure_roles(connection)
        _upgrade(connection)
        _refuse_if_used_otherwise(connection, place)
        if connection.execute(text(ARCHIVE)).one_or_none() is None:
            _become_archive(connection, place)
        revision = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one()
        connection.commit()
    engine.dispose()
    logger.info("migrated an archive", shard=place.number, revision=revision)
    return str(revision)


def _become_archive(connection: Connection, place: ArchivePlace) -> None:
    """Let a new database be an archive: it begins without a volume."""
    if connection.execute(text(_HOLDS_ROWS)).scalar_one():
        raise WrongArchive(
            f"The database at place {place.number} of MICROFIN_ARCHIVES_DIRECT holds accounts or "
            "outcomes, but is no archive: an archive begins as an empty database."
        )
    connection.execute(text(_WITHOUT_VOLUME_0))
    connection.execute(
        text("INSERT INTO archive (shard_id, shard, shards) VALUES (:id, :shard, :shards)"),
        {"id": place.shard_id, "shard": place.number, "shards": place.count},
    )


_HOLDS_ROWS = """
SELECT EXISTS (SELECT FROM outcomes) OR EXISTS (SELECT FROM entries)
    OR EXISTS (SELECT FROM accounts) OR (SELECT max(volume) FROM volumes) <> 0
"""

_WITHOUT_VOLUME_0 = """
ALTER TABLE outcomes DETACH PARTITION volume_0.outcomes;
ALTER TABLE entries DETACH PARTITION volume_0.entries;
DROP TABLE volume_0.outcomes, volume_0.entries;
DROP SCHEMA volume_0;
DELETE FROM volumes;
"""


def _engine(url: str) -> Engine:
    return create_engine(
        make_url(for_libpq(url)).set(drivername="postgresql+psycopg"),
        poolclass=NullPool,
        future=True,
        # Otherwise a database in SQL_ASCII answers in bytes, and SQLAlchemy fails.
        connect_args={"client_encoding": "UTF8", **_DEADLINES},
    )


def _check_databases(urls: Sequence[str], places: Sequence[ShardPlace]) -> None:
    """Check all databases before the first of them is changed."""
    seen: dict[tuple[object, ...], int] = {}
    for url, place in zip(urls, places, strict=True):
        with _engine(url).connect() as connection:
            _refuse_other_encodings(connection, place.number)
            _refuse_archive(connection, place)
            if connection.execute(text("SELECT to_regclass('routing')")).scalar() is not None:
                row = connection.execute(text(SHARD)).one_or_none()
                if row is not None:
                    place.check(row)
            identity = tuple(connection.execute(text(_IDENTITY)).one())
        if identity in seen:
            raise WrongShard(
                f"The URLs at places {seen[identity]} and {place.number} of {place.count} lead to "
                "one database, which is in MICROFIN_DATABASES_DIRECT twice: each shard needs "
                "a database of its own."
            )
        seen[identity] = place.number


def _migrate_shard(url: str, place: ShardPlace, partitions: int) -> str:
    engine = _engine(url)
    with engine.connect() as connection:
        _wait_for_turn(connection)
        _ensure_roles(connection)
        _upgrade(connection)
        _ensure_routing(connection, place, partitions)
        revision = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one()
        connection.commit()
    engine.dispose()
    logger.info("migrated", shard=place.number, revision=revision)
    return str(revision)


def _upgrade(connection: Connection) -> None:
    configuration = Config(attributes={"connection": connection})
    configuration.set_main_option("script_location", str(Path(__file__).parent))
    command.upgrade(configuration, "head")
    connection.commit()
    _show_schema(connection)


def _refuse_archive(connection: Connection, place: ShardPlace) -> None:
    """Raise `WrongShard` if a database that should be a shard is an archive."""
    if connection.execute(text("SELECT to_regclass('archive')")).scalar() is not None:
        row = connection.execute(text("SELECT shard, shards FROM archive")).one_or_none()
        if row is not None:
            raise WrongShard(
                f"The database at place {place.number} of {place.count} is the archive of shard "
                f"{row[0]} of {row[1]}: name it in MICROFIN_ARCHIVES_DIRECT, not in "
                "MICROFIN_DATABASES_DIRECT."
            )


def _wait_for_turn(connection: Connection) -> None:
    """Acquire the lock of migrations, until the connection is closed.

    This polls: a session that waited inside PostgreSQL would hold a snapshot, and an index that
    another migration builds concurrently waits for all snapshots.
    """
    while True:
        acquired = connection.execute(text("SELECT pg_try_advisory_lock(:lock)"), {"lock": _LOCK})
        mine = bool(acquired.scalar_one())
        connection.commit()
        if mine:
            return
        time.sleep(_TURN_SECONDS)


def _refuse_other_encodings(connection: Connection, shard: int) -> None:
    """Raise `WrongEncoding` unless the database is in UTF8.

    Lengths are checked in characters, and names and e-mail addresses come in UTF-8.
    """
    encoding = connection.execute(text("SHOW server_encoding")).scalar_one()
    if encoding != "UTF8":
        name = connection.execute(text("SELECT current_database()")).scalar_one()
        raise WrongEncoding(
            f"Shard {shard}'s database {name} is encoded in {encoding}; a ledger needs UTF8. An "
            "encoding cannot be changed: create the database again by CREATE DATABASE … TEMPLATE "
            "template0 ENCODING 'UTF8' (in CloudNativePG spec.bootstrap.initdb.encoding: UTF8)."
        )


def _ensure_roles(connection: Connection) -> None:
    """Create the processes' roles if they are missing, and set their timeouts."""
    for role, settings in ROLES.items():
        exists = connection.execute(
            text("SELECT 1 FROM pg_roles WHERE rolname = :role"), {"role": role}
        ).scalar()
        statements = [] if exists else [f"CREATE ROLE {role} NOLOGIN"]
        statements += [
            f"ALTER ROLE {role} SET {name} = '{value}'" for name, value in settings.items()
        ]
        try:
            for statement in statements:
                connection.execute(text(statement))
            connection.commit()
        except ProgrammingError as error:
            connection.rollback()
            if not exists:
                raise
            logger.warning(
                "role settings not changed",
                role=role,
                advice="let the role's administrator run: " + "; ".join(statements),
                error=str(error.orig).strip(),
            )


def _show_schema(connection: Connection) -> None:
    """Let the processes see which schema this is: they refuse one that is too old for them."""
    connection.execute(text(f"GRANT SELECT ON alembic_version TO {', '.join(ROLES)}"))
    connection.commit()


def _ensure_routing(connection: Connection, place: ShardPlace, partitions: int) -> None:
    connection.execute(
        text(
            "INSERT INTO routing (shard, shards, generation, partition_count)"
            " VALUES (:shard, :shards, 1, :partitions) ON CONFLICT DO NOTHING"
        ),
        {"shard": place.number, "shards": place.count, "partitions": partitions},
    )
    # Again, because another `microfin migrate` may have inserted the row meanwhile.
    place.check(connection.execute(text(SHARD)).one())
