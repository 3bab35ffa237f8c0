"""PostgreSQL: one instance (a cluster, in its own words) for each shard, with microfin's roles."""

import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from microfin_local.credentials import OWNER, ROLES, SUPERUSER, WORKER, Credentials
from microfin_local.database_home import DatabaseHome, sockets_fit
from microfin_local.errors import PlatformError
from microfin_local.programs import find_postgresql
from microfin_local.supervised import Program, run_to_end

DATABASE = "microfin"
ARCHIVE = "microfin_archive"

# Durable as in production: fsync and synchronous_commit stay on; only sizes are for one machine.
# The migrations set the roles' time limits.
_SETTINGS = """\
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = '{sockets}'
max_connections = 100
shared_buffers = 128MB
fsync = on
synchronous_commit = on
full_page_writes = on
wal_compression = on
max_wal_size = 1GB
jit = off
password_encryption = scram-sha-256
log_destination = stderr
logging_collector = off
log_line_prefix = '%m [%p] %q%u@%d '
log_lock_waits = on
log_min_duration_statement = 1s
# No value of a statement is logged: neither parameters, nor the text of one that failed (a password
# of a role, a batch), nor an error's details, which show rows and keys.
log_parameter_max_length = 0
log_parameter_max_length_on_error = 0
log_min_error_statement = panic
log_error_verbosity = terse
log_timezone = UTC
timezone = UTC
"""
_TLS_SETTINGS = """\
ssl = on
ssl_cert_file = 'server.crt'
ssl_key_file = 'server.key'
"""
TLS_FILES = ("server.crt", "server.key")
_HOST_ACCESS = """\
# All roles need a password, and only this machine may connect.
local all all scram-sha-256
host all all 127.0.0.1/32 scram-sha-256
# pg_basebackup.
host replication {superuser} 127.0.0.1/32 scram-sha-256
"""


@dataclass(frozen=True)
class PostgresShard:
    """The port and the folder of one shard's instance."""

    shard: int
    port: int
    data: Path
    credentials: Credentials
    tls: Path | None = None

    @property
    def name(self) -> str:
        """The process's name."""
        return f"postgres-{self.shard}"

    @property
    def pooler_host(self) -> str:
        """The host for the pooler: a socket's folder, which costs less than TCP, or loopback."""
        return str(self.data) if sockets_fit(self.data) else "127.0.0.1"

    def url(self, role: str = OWNER, database: str = DATABASE) -> str:
        """Return the direct URL (no pooler) of a role, without TLS: it stays on this machine."""
        password = self.credentials.passwords[role]
        return f"postgresql://{role}:{password}@127.0.0.1:{self.port}/{database}?sslmode=disable"

    async def connect(self, role: str, database: str) -> "asyncpg.Connection":
        """Open a direct connection. Raises OSError while the server is not ready for it."""
        try:
            return await asyncpg.connect(self.url(role, database), timeout=5)
        except asyncpg.CannotConnectNowError as error:
            raise ConnectionRefusedError(str(error)) from error

    async def answers(self) -> bool:
        """Return whether the server accepts connections."""
        connection = await self.connect(SUPERUSER, "postgres")
        await connection.close()
        return True


async def prepare(shard: PostgresShard, home: DatabaseHome, log: Path) -> Program:
    """Make the instance's files if they are missing, and return how to run it."""
    binaries = find_postgresql()
    if not (shard.data / "PG_VERSION").exists():
        await _initialize(shard, home, binaries, log)
    home.write(shard.data / "microfin.conf", _settings(shard))
    if shard.tls is not None:
        home.copy(shard.tls, shard.data, TLS_FILES)
    home.write(shard.data / "pg_hba.conf", _HOST_ACCESS.format(superuser=SUPERUSER))
    return Program(
        name=shard.name,
        arguments=(str(binaries / "postgres"), "-D", str(shard.data)),
        directory=shard.data,
        user=home.user,
        stop_signal=signal.SIGINT,  # Fast shutdown: ends sessions, writes a checkpoint.
        death_signal=signal.SIGQUIT,  # Immediate shutdown: as a crash, children included.
        grace_seconds=30,
    )


def _settings(shard: PostgresShard) -> str:
    sockets = shard.data if sockets_fit(shard.data) else ""
    settings = _SETTINGS.format(port=shard.port, sockets=sockets)
    return settings + _TLS_SETTINGS if shard.tls is not None else settings


async def _initialize(shard: PostgresShard, home: DatabaseHome, binaries: Path, log: Path) -> None:
    draft = home.folder / f"{shard.data.name}.draft"
    if draft.exists():  # Of a first start that was interrupted.
        shutil.rmtree(draft)
    home.make_folder(draft.name)
    password_file = home.folder / f"{shard.name}.password"
    home.write(password_file, shard.credentials.passwords[SUPERUSER])
    initdb = Program(
        name="initdb",
        arguments=(
            *(str(binaries / "initdb"), "-D", str(draft), f"--username={SUPERUSER}"),
            *("--encoding=UTF8", "--locale=C.UTF-8", "--auth=scram-sha-256"),
            f"--pwfile={password_file}",
        ),
        directory=draft,
        user=home.user,
    )
    try:
        if await run_to_end(initdb, log) != 0:
            raise PlatformError(f"initdb failed; its log is {log}.")
    finally:
        password_file.unlink()
    settings = draft / "postgresql.conf"
    settings.write_text(settings.read_text() + "\ninclude 'microfin.conf'\n")
    draft.replace(shard.data)


async def make_roles(shard: PostgresShard) -> None:
    """Create microfin's roles and its database; existing ones stay unchanged."""
    connection = await shard.connect(SUPERUSER, "postgres")
    try:
        # The log of a slow statement would show a password.
        await connection.execute("SET log_min_duration_statement = -1")
        known = {record[0] for record in await connection.fetch("SELECT rolname FROM pg_roles")}
        for role in (OWNER, *ROLES):
            if role not in known:
                # Our passwords are hexadecimal; a role's name cannot be a parameter.
                rights = "LOGIN CREATEROLE" if role == OWNER else "LOGIN"
                password = shard.credentials.passwords[role]
                await connection.execute(f"CREATE ROLE {role} {rights} PASSWORD '{password}'")
        # Its batches contain values as literals, so none is logged; metrics show slow ones.
        await connection.execute(f"ALTER ROLE {WORKER} SET log_min_duration_statement = -1")
        if connection.get_server_version().major >= 16:
            # Since 16, CREATEROLE alone does not allow the owner to set others' time limits.
            await connection.execute(f"GRANT {', '.join(ROLES)} TO {OWNER} WITH ADMIN OPTION")
    finally:
        await connection.close()
    await make_database(shard, DATABASE)


async def make_database(shard: PostgresShard, database: str) -> None:
    """Create a database that belongs to the owner, unless it exists."""
    connection = await shard.connect(SUPERUSER, "postgres")
    try:
        known = await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", database)
        if known is None:
            await connection.execute(f'CREATE DATABASE "{database}" OWNER {OWNER}')
    finally:
        await connection.close()
