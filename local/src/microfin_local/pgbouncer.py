"""PgBouncer in transaction mode: one process, one port, one database name for each shard."""

from dataclasses import dataclass, field
from pathlib import Path

import asyncpg

from microfin_local.credentials import ROLES, SUPERUSER, Credentials
from microfin_local.database_home import DatabaseHome, sockets_fit
from microfin_local.detours import Detours
from microfin_local.postgres import DATABASE, TLS_FILES, PostgresShard
from microfin_local.programs import find_program
from microfin_local.supervised import Program

# server_login_retry: after a restart of PostgreSQL clients wait one second, not 15.
# server_connect_timeout: log-ins are tried one at a time; an unanswered one delays all others.
# query_wait_timeout: a client that has no server after this time gets an error; microfin's clients
# have given up by then.
# max_user_connections: the other limits are for each database, and a server may have many (an
# archive, tests). At this one an idle connection to another database makes room.
# Debian 12 has 1.18, which has no prepared statements in transaction mode; no client may use them.
_SETTINGS = """\
[databases]
{databases}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir = {sockets}
auth_type = scram-sha-256
auth_file = {users}
admin_users = {superuser}
pool_mode = transaction
max_client_conn = 1000
default_pool_size = 20
max_db_connections = 80
max_user_connections = {user_connections}
server_idle_timeout = 600
server_login_retry = 1
server_connect_timeout = 2
query_wait_timeout = 5
tcp_keepalive = 1
tcp_keepidle = 5
tcp_keepintvl = 2
tcp_keepcnt = 3
ignore_startup_parameters = extra_float_digits
log_connections = 0
log_disconnections = 0
"""
_USER_CONNECTIONS = 25  # of each of three roles on one server, which takes 100 with the owner's
_TLS_SETTINGS = """\
client_tls_sslmode = allow
client_tls_cert_file = {folder}/server.crt
client_tls_key_file = {folder}/server.key
"""


@dataclass
class PgBouncer:
    """The pooler's port and folder, and the shards' databases that it knows."""

    port: int
    folder: Path
    home: DatabaseHome
    credentials: Credentials
    shards: list[PostgresShard]
    detours: Detours
    #: Name in the pooler to (shard, name in PostgreSQL).
    databases: dict[str, tuple[int, str]] = field(default_factory=dict)
    tls: Path | None = None

    name = "pgbouncer"

    def __post_init__(self) -> None:
        """Add every shard's database as microfin_0, microfin_1 and so on, and all connections."""
        self.add(DATABASE)
        for shard in self.shards:
            self._port_of(shard)
        for role in ROLES:
            self._port_for(role)

    def add(self, database: str) -> None:
        """Add a database of every shard, as NAME_0, NAME_1 and so on."""
        for shard in self.shards:
            self.databases[f"{database}_{shard.shard}"] = (shard.shard, database)

    def url(self, role: str, shard: int, database: str = DATABASE, port: int | None = None) -> str:
        """Return the pooled URL of a role for a database of a shard."""
        password = self.credentials.passwords[role]
        place = f"127.0.0.1:{port or self.port}/{database}_{shard}"
        return f"postgresql://{role}:{password}@{place}?sslmode=disable"

    def local_url(self, role: str, shard: int, database: str = DATABASE) -> str:
        """Return the same URL by a socket file, which costs less than TCP, if the path is valid.

        Through a proxy it is TCP, and each role has its own connection.
        """
        if self.detours.wanted:
            return self.url(role, shard, database, self._port_for(role))
        if not sockets_fit(self.folder):
            return self.url(role, shard, database)
        password = self.credentials.passwords[role]
        place = f"host={self.folder}&port={self.port}&sslmode=disable"
        return f"postgresql://{role}:{password}@/{database}_{shard}?{place}"

    def write_settings(self) -> None:
        """Write settings and passwords; `read_again` makes a running PgBouncer read them."""
        databases = "\n".join(
            f"{name} = {self._way_to(self.shards[shard])} dbname={database}"
            for name, (shard, database) in self.databases.items()
        )
        users = self.folder / "users.txt"
        self.home.write(
            users,
            "".join(f'"{role}" "{word}"\n' for role, word in self.credentials.passwords.items()),
        )
        if self.tls is not None:
            self.home.copy(self.tls, self.folder, TLS_FILES)
        self.home.write(
            self.folder / "pgbouncer.ini",
            _SETTINGS.format(
                databases=databases,
                port=self.port,
                user_connections=_USER_CONNECTIONS * len(self.shards),
                sockets=self.folder if sockets_fit(self.folder) else "",
                users=users,
                superuser=SUPERUSER,
            )
            + (_TLS_SETTINGS.format(folder=self.folder) if self.tls is not None else ""),
        )

    async def read_again(self) -> None:
        """Make the running PgBouncer read its settings again, and return when it has.

        By its console, which answers: a signal returns before the new names are known.
        """
        password = self.credentials.passwords[SUPERUSER]
        console = f"postgresql://{SUPERUSER}:{password}@127.0.0.1:{self.port}/{self.name}"
        connection = await asyncpg.connect(
            f"{console}?sslmode=disable", statement_cache_size=0, timeout=5
        )
        try:
            await connection.execute("RELOAD")
        finally:
            connection.terminate()

    def _way_to(self, shard: PostgresShard) -> str:
        if self.detours.wanted:
            return f"host=127.0.0.1 port={self._port_of(shard)}"
        return f"host={shard.pooler_host} port={shard.port}"

    def _port_of(self, shard: PostgresShard) -> int:
        return self.detours.around(f"{self.name}-{shard.name}", shard.port)

    def _port_for(self, role: str) -> int:
        return self.detours.around(f"{role.removeprefix('microfin_')}-{self.name}", self.port)

    def program(self) -> Program:
        """Write the settings and return how to run it."""
        self.home.make_folder(self.folder.name)
        self.write_settings()
        return Program(
            name=self.name,
            arguments=(find_program("pgbouncer"), str(self.folder / "pgbouncer.ini")),
            directory=self.folder,
            user=self.home.user,
        )
