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
        configuration = Config(attributes={"connection": connection})
        configuration.set_main_option("script_location", str(Path(__file__).parent))
        command.upgrade(configuration, "head")
        connection.commit()
        _show_schema(connection)
        _ensure_routing(connection, place, partitions)
        revision = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one()
        connection.commit()
    engine.dispose()
    logger.info("migrated", shard=place.number, revision=revision)
    return str(revision)


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
