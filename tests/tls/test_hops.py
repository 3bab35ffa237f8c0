"""Each hop by TLS, against its real server: what is believed, and what is said about the rest.

The clients are those of the processes. Each keeps its context, as a process does: after a refusal
the next attempt succeeds as soon as the certificates are right.
"""

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Final
from unittest.mock import patch

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from microfin.kafka.client import KAFKA, connection_options
from microfin.postgres.connections import connect
from microfin.process import renewed_tls
from microfin.process.database_tls import POSTGRES
from microfin.process.settings import CommonSettings
from microfin.process.tls_refusals import TlsRefused
from microfin.redis.guarded import GuardedRedis, RedisUnavailable
from microfin.redis.tls import REDIS
from microfin_tools.audit.shard import open_shards
from microfin_tools.migrations.run import migrate
from support.certificates import Authority, Issued, Secret
from tls.servers import NAMES, Servers

OTHER: Final = Authority("another-ca")


class Client:
    """The settings of a process, with its Secrets: the servers' CAs, and its own certificate."""

    def __init__(self, servers: Servers, folder: Path) -> None:
        self.servers = servers
        self.authorities = Secret(folder / "ca")
        self.user = Secret(folder / "user")
        self.trust(servers.authority)
        self.be(servers.authority.issue("microfin-administrator"))

    def trust(self, authority: Authority) -> None:
        self.authorities.put({"ca.crt": authority.certificate})

    def be(self, issued: Issued) -> None:
        self.user.put({"user.crt": issued.certificate, "user.key": issued.key})

    def settings(self, tls: str = " tls", **changed: str) -> CommonSettings:
        """Return the settings; without `tls` they lead to ports where nobody speaks it."""
        port_of = self.servers.platform.port_of
        return CommonSettings(
            kafka=f"127.0.0.1:{port_of(f'kafka-1{tls}')}",
            kafka_ca_file=str(self.authorities.folder),
            kafka_certificate_file=self.user.path("user.crt"),
            kafka_key_file=self.user.path("user.key"),
            redis=f"rediss://localhost:{port_of(f'redis-0{tls}')}",
            redis_ca_file=self.authorities.path("ca.crt"),
            **changed,
        )

    def fault(self, server: str) -> str:
        """Return what `tls_fault` says in a process of this client."""
        here = str(self.authorities.folder)
        ours = [it for it in renewed_tls._contexts if it.files.authority.startswith(here)]
        with patch.object(renewed_tls, "_contexts", ours):
            return renewed_tls.tls_fault(server)

    def url(self, plain: str, mode: str = "verify-full") -> str:
        file = self.authorities.path("ca.crt")
        return plain.replace("sslmode=disable", f"sslmode={mode}&sslrootcert={file}")

    async def use_kafka(self, tls: str = " tls") -> None:
        client = AIOKafkaAdminClient(**connection_options(self.settings(tls), "test"))
        try:
            await client.start()
            await client.list_topics()
        finally:
            await client.close()

    async def use_redis(self, tls: str = " tls") -> None:
        redis = GuardedRedis(self.settings(tls))
        try:
            for number in range(20):  # on all nodes
                await redis.set(f"tls {number}", b"value", seconds=60)
                assert await redis.get(f"tls {number}") == b"value"
        finally:
            await redis.close()

    async def use_postgres(self) -> None:
        await self._query(self.servers.platform.postgres_direct(database="postgres"))

    async def use_pooler(self) -> None:
        await self._query(self.servers.platform.postgres_pooled(0, "microfin_worker"))

    async def _query(self, plain: str, mode: str = "verify-full") -> None:
        connection = await connect(self.url(plain, mode), statement_cache_size=0, timeout=5)
        try:
            assert connection._transport.get_extra_info("cipher") is not None
            assert await connection.fetchval("SELECT 1") == 1
        finally:
            await connection.close()


Use = Callable[[Client], Awaitable[None]]
HOPS: Final[dict[str, tuple[str, Use]]] = {
    "kafka": (KAFKA, Client.use_kafka),
    "postgres": (POSTGRES, Client.use_postgres),
    "pooler": (POSTGRES, Client.use_pooler),
    "redis": (REDIS, Client.use_redis),
}


@pytest.fixture
def client(servers: Servers, tmp_path: Path) -> Client:
    return Client(servers, tmp_path)


async def refused(client: Client, server: str, use: Awaitable[None]) -> str:
    """Return the sentence with which a hop is refused."""
    with pytest.raises(Exception):  # noqa: B017, PT011 - each client library has its own
        await use
    said = client.fault(server)
    assert said.startswith(f"{server} at "), said
    return said


@pytest.mark.parametrize("hop", HOPS)
async def test_the_right_certificates_are_believed(client: Client, hop: str) -> None:
    server, use = HOPS[hop]
    await use(client)
    assert client.fault(server) == ""


FAULTS: Final[dict[str, tuple[Callable[[Servers], Issued], str]]] = {
    "expired": (
        lambda it: it.authority.issue("server", *NAMES, seconds=-60),
        "is not believed: its certificate, or its authority's, has expired",
    ),
    "name": (
        lambda it: it.authority.issue("server", "elsewhere.test"),
        "is not believed: its certificate is for another name than ",
    ),
    "authority": (
        lambda _: OTHER.issue("server", *NAMES),
        "is not believed: its certificate is of an unknown authority, none in ",
    ),
    "form": (
        lambda it: it.authority.issue("server", *NAMES, strict=False),
        "is not believed: its certificate has a fault (Missing Authority Key Identifier)",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_server_with_a_wrong_certificate_is_not_believed(
    client: Client, fault: str
) -> None:
    issue, sentence = FAULTS[fault]
    servers = client.servers
    try:
        await servers.show(issue(servers))
        for server, use in HOPS.values():
            assert sentence in await refused(client, server, use(client))
    finally:
        await servers.show(servers.right())
    for server, use in HOPS.values():
        await use(client)
        assert client.fault(server) == ""


async def test_a_server_whose_authority_is_not_trusted_any_longer(client: Client) -> None:
    client.trust(OTHER)
    for server, use in HOPS.values():
        assert "is of an unknown authority" in await refused(client, server, use(client))
    client.trust(client.servers.authority)
    for _, use in HOPS.values():
        await use(client)


async def test_a_server_without_tls_gets_nothing(client: Client) -> None:
    sentence = "does not complete a TLS handshake: does it speak TLS on this port?"
    for server, use in ((KAFKA, client.use_kafka), (REDIS, client.use_redis)):
        assert sentence in await refused(client, server, use(""))


@pytest.fixture
async def postgres_without_tls(servers: Servers) -> Iterator[None]:
    administrator = await connect(servers.platform.postgres_direct(0, "postgres", "postgres"))
    await administrator.execute("ALTER SYSTEM SET ssl = off")
    await administrator.execute("SELECT pg_reload_conf()")
    try:
        yield
    finally:
        await administrator.execute("ALTER SYSTEM RESET ssl")
        await administrator.execute("SELECT pg_reload_conf()")
        await administrator.close()
        await servers.show(servers.right())


@pytest.mark.usefixtures("postgres_without_tls")
async def test_postgresql_without_tls_gets_no_password(client: Client) -> None:
    """An attacker in between needs only to say that the server has no TLS."""
    plain = client.servers.platform.postgres_direct(database="postgres")
    without = plain.removesuffix("?sslmode=disable")
    for url in (client.url(plain), client.url(plain, "require"), without):
        with pytest.raises(TlsRefused, match="rejected SSL upgrade: let it speak TLS, or add"):
            await connect(url, timeout=5)
    connection = await connect(plain, timeout=5)
    await connection.close()


async def test_a_url_without_sslmode_verifies_the_server(client: Client) -> None:
    plain = client.servers.platform.postgres_direct(database="postgres")
    without = plain.removesuffix("?sslmode=disable")
    with pytest.raises(TlsRefused, match="of an unknown authority, none in what the system trusts"):
        await connect(without, timeout=5)
    with pytest.raises(TlsRefused, match="of an unknown authority"):
        async with open_shards([without]):
            pass
    with pytest.raises(Exception, match="certificate verify failed"):
        migrate([without], 1)
    await client._query(plain, "verify-ca")


async def test_migrations_verify_by_the_authoritys_file(client: Client) -> None:
    platform = client.servers.platform
    await platform.create_database("tls_migrated")
    plain = platform.postgres_direct(database="tls_migrated")
    assert migrate([client.url(plain)], 1)
    async with open_shards([client.url(plain)]):
        pass


@pytest.mark.parametrize("mode", ["prefer", "allow", "verify_full", ""])
def test_a_url_must_say_whether_tls_is_used(mode: str) -> None:
    for name in ("databases", "databases_direct"):
        with pytest.raises(ValueError, match="does not say whether TLS is used") as caught:
            CommonSettings(**{name: f"postgresql://user:canary@host/database?sslmode={mode}"})
        assert "canary" not in str(caught.value)


def test_what_would_be_ignored_is_refused() -> None:
    with pytest.raises(ValueError, match="does not know sslcrl in a database's URL"):
        CommonSettings(databases="postgresql://user@host/d?sslmode=verify-full&sslcrl=/list.pem")


@pytest.mark.parametrize(
    ("seconds", "foreign"), [(-60, False), (3600, True)], ids=["expired", "authority"]
)
async def test_a_broker_that_refuses_our_certificate_is_named(
    client: Client, seconds: float, foreign: bool
) -> None:
    authority = OTHER if foreign else client.servers.authority
    issued = authority.issue("microfin-administrator", seconds=seconds)
    client.be(issued)
    said = await refused(client, KAFKA, client.use_kafka())
    assert f"does not accept this process's certificate {client.user.path('user.crt')}" in said
    assert f"{issued.ends:%Y-%m-%d %H:%M:%S} UTC" in said
    client.be(client.servers.authority.issue("microfin-administrator"))
    await client.use_kafka()
    assert client.fault(KAFKA) == ""


async def test_a_cache_whose_certificate_expired_is_a_fault_that_says_so(client: Client) -> None:
    """Requests go on without it; /readyz shows the sentence."""
    servers = client.servers
    redis = GuardedRedis(client.settings())
    try:
        await servers.show(servers.authority.issue("server", *NAMES, seconds=-60))
        with pytest.raises(RedisUnavailable):
            await redis.get("tls")
        await redis._look()
        assert "is not believed: its certificate, or its authority's, has expired" in redis.fault
    finally:
        await redis.close()
        await servers.show(servers.right())
