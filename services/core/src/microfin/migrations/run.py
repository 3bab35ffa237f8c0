"""`microfin migrate`: bring every shard's schema up to date and make generation 1."""

import time
from pathlib import Path

import structlog
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, create_engine, make_url, text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.pool import NullPool

logger = structlog.get_logger(__name__)

_LOCK = 0x6D6963726F66696E  # "microfin": one migration at a time on one database
_TURN_SECONDS = 0.2

ROLES: dict[str, dict[str, str]] = {
    # A frozen worker's lock must not hold its successor (design, "Half-dead owners").
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


class ShardMismatch(Exception):
    """The URLs of the shards are not those that the databases were made for."""


class WrongEncoding(Exception):
    """A database is not encoded in UTF8."""


def migrate(urls: list[str], partitions: int) -> list[str]:
    """Bring the shards at `urls` (direct, owner's) to the newest revision, in order.

    A new shard gets routing generation 1 with `partitions`. Returns the revision of each shard.
    Raises `ShardMismatch` where a database belongs to another place in the list, `WrongEncoding`
    where one is not in UTF8, and `ValueError` where `partitions` is not a positive multiple of the
    number of shards. Safe to run twice, and at the same time.
    """
    if partitions < 1 or partitions % len(urls):
        raise ValueError(
            f"--partitions must be a positive multiple of the {len(urls)} shards, not {partitions}."
        )
    return [_migrate_shard(url, shard, len(urls), partitions) for shard, url in enumerate(urls)]


def _migrate_shard(url: str, shard: int, shards: int, partitions: int) -> str:
    engine = create_engine(
        make_url(url).set(drivername="postgresql+psycopg"),
        poolclass=NullPool,
        future=True,
        # Said by us, or a database in SQL_ASCII answers in bytes, at which SQLAlchemy fails.
        connect_args={"client_encoding": "UTF8"},
    )
    with engine.connect() as connection:
        _refuse_other_encodings(connection, shard)
        _wait_for_turn(connection)
        _ensure_roles(connection)
        configuration = Config(attributes={"connection": connection})
        configuration.set_main_option("script_location", str(Path(__file__).parent))
        command.upgrade(configuration, "head")
        connection.commit()
        _ensure_routing(connection, shard, shards, partitions)
        revision = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one()
        connection.commit()
    engine.dispose()
    logger.info("migrated", shard=shard, revision=revision)
    return str(revision)


def _wait_for_turn(connection: Connection) -> None:
    """Take the lock of migrations, until the connection is closed.

    By asking again and again: whoever waits inside PostgreSQL holds a snapshot, and an index that
    another migration builds concurrently waits for all of those.
    """
    while True:
        taken = connection.execute(text("SELECT pg_try_advisory_lock(:lock)"), {"lock": _LOCK})
        mine = bool(taken.scalar_one())
        connection.commit()
        if mine:
            return
        time.sleep(_TURN_SECONDS)


def _refuse_other_encodings(connection: Connection, shard: int) -> None:
    """Raise `WrongEncoding` unless the database knows what a character is.

    Lengths are checked in characters, and names and e-mail addresses come in UTF-8.
    """
    encoding = connection.execute(text("SHOW server_encoding")).scalar_one()
    if encoding != "UTF8":
        name = connection.execute(text("SELECT current_database()")).scalar_one()
        raise WrongEncoding(
            f"Shard {shard}'s database {name} is encoded in {encoding}; a ledger needs UTF8. An "
            "encoding cannot be changed: make the database anew by CREATE DATABASE … TEMPLATE "
            "template0 ENCODING 'UTF8' (in CloudNativePG spec.bootstrap.initdb.encoding: UTF8)."
        )


def _ensure_roles(connection: Connection) -> None:
    """Make the processes' roles where they are missing, and give them their timeouts."""
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
                "role settings left alone",
                role=role,
                advice="let the role's administrator run: " + "; ".join(statements),
                error=str(error.orig).strip(),
            )


def _ensure_routing(connection: Connection, shard: int, shards: int, partitions: int) -> None:
    connection.execute(
        text(
            "INSERT INTO routing (shard, shards, generation, partition_count)"
            " VALUES (:shard, :shards, 1, :partitions) ON CONFLICT DO NOTHING"
        ),
        {"shard": shard, "shards": shards, "partitions": partitions},
    )
    found = connection.execute(text("SELECT shard, shards FROM routing")).one()
    if (found.shard, found.shards) != (shard, shards):
        connection.rollback()
        raise ShardMismatch(
            f"The database at place {shard} of {shards} is shard {found.shard} of {found.shards}: "
            "MICROFIN_DATABASES_DIRECT must list the same shards in the same order as ever."
        )
