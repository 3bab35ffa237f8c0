"""Every new connection reads certificates and passwords again if they have changed."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import msgspec
import pytest
import pytest_asyncio
from prometheus_client import REGISTRY
from redis.asyncio import Redis

from microfin.postgres.connections import connect_pool
from microfin.process.certificate_files import TlsFiles
from microfin.process.renewed_tls import RenewedContext, renewed_context
from microfin.process.settings import CommonSettings
from microfin.process.tls_refusals import TlsRefused
from microfin.redis.guarded import GuardedRedis
from microfin_local.platform import Platform
from support.certificates import Authority, Issued, Secret, write_servers

AUTHORITY = Authority()
OTHER = Authority("cluster-ca v1")


class Server:
    """Lets in only whom `AUTHORITY` has given a certificate, and says whom it let in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.show(AUTHORITY.issue("kafka", "127.0.0.1"))

    def show(self, issued: Issued) -> None:
        """Show this certificate from now on."""
        self.folder.mkdir(exist_ok=True)
        write_servers(self.folder, issued, [AUTHORITY])
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / "server.crt", self.folder / "server.key")
        context.load_verify_locations(self.folder / "ca.pem")
        context.verify_mode = ssl.CERT_REQUIRED
        self.context = context

    async def __aenter__(self) -> "Server":
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._listening.setblocking(False)
        self.port = self._listening.getsockname()[1]
        self._serving = asyncio.create_task(self._serve())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._serving.cancel()
        self._listening.close()

    async def _serve(self) -> None:
        while True:
            accepted, _ = await asyncio.get_running_loop().sock_accept(self._listening)
            await asyncio.to_thread(self._let_in, accepted)

    def _let_in(self, accepted: socket.socket) -> None:
        """Blocking, because asyncio's servers close before they have said why they refuse."""
        accepted.settimeout(5)
        with (
            contextlib.suppress(OSError),
            accepted,
            self.context.wrap_socket(accepted, server_side=True) as connection,
        ):
            names = dict(pair[0] for pair in connection.getpeercert()["subject"])
            connection.sendall(names["commonName"].encode())

    async def let_in(self, context: ssl.SSLContext, host: str = "127.0.0.1") -> str:
        reader, writer = await asyncio.open_connection(host, self.port, ssl=context)
        try:
            return (await reader.read()).decode()
        finally:
            writer.close()


@pytest_asyncio.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with Server(tmp_path / "server") as server:
        yield server


class Client:
    """The two mounted Secrets of a client: Strimzi's of the brokers' CA and of the user."""

    def __init__(self, folder: Path) -> None:
        self.authority = Secret(folder / "ca", {"ca.crt": AUTHORITY.certificate})
        self.user = Secret(folder / "user")
        self.renew("first")
        self.files = TlsFiles(
            "Kafka", str(folder / "ca"), self.user.path("user.crt"), self.user.path("user.key")
        )

    def renew(self, name: str, seconds: float = 3600, authority: Authority = AUTHORITY) -> Issued:
        issued = authority.issue(name, seconds=seconds)
        self.user.put({"user.crt": issued.certificate, "user.key": issued.key})
        return issued


@pytest.fixture
def client(tmp_path: Path) -> Client:
    return Client(tmp_path)


async def test_a_renewed_certificate_is_shown(server: Server, client: Client) -> None:
    context = RenewedContext(client.files)
    assert await server.let_in(context) == "first"
    client.renew("second")
    assert await server.let_in(context) == "second"


async def test_half_a_pair_is_not_used(server: Server, client: Client) -> None:
    context = RenewedContext(client.files)
    old, new = AUTHORITY.issue("first"), AUTHORITY.issue("second")
    client.user.put({"user.crt": new.certificate, "user.key": old.key})
    assert await server.let_in(context) == "first"
    client.user.put({"user.crt": new.certificate})
    assert await server.let_in(context) == "first"
    client.user.put({"user.crt": new.certificate, "user.key": new.key})
    assert await server.let_in(context) == "second"


async def test_all_authorities_in_the_folder_are_believed(server: Server, client: Client) -> None:
    """While a CA is replaced, the old one stands beside the new one under another name."""
    context = RenewedContext(client.files)
    old_name = "ca-2026-11-26T08-00-00Z.crt"
    client.authority.put(
        {"ca.crt": OTHER.certificate, old_name: AUTHORITY.certificate, "ca.password": b"x"}
    )
    assert await server.let_in(context) == "first"
    server.show(OTHER.issue("kafka", "127.0.0.1"))
    assert await server.let_in(context) == "first"


async def test_an_authority_that_was_removed_is_not_believed(
    server: Server, client: Client
) -> None:
    """What was only added to a context would be believed for as long as the process lives."""
    context = RenewedContext(client.files)
    client.authority.put({"ca.crt": OTHER.certificate})
    with pytest.raises(TlsRefused, match="unknown authority"):
        await server.let_in(context)
    client.authority.put({"ca.crt": AUTHORITY.certificate})
    assert await server.let_in(context) == "first"


async def test_a_file_can_name_the_authorities_too(server: Server, client: Client) -> None:
    bundle = Path(client.authority.path("ca.crt"))
    client.authority.put({"ca.crt": OTHER.certificate + AUTHORITY.certificate})
    files = msgspec.structs.replace(client.files, authority=str(bundle))
    assert await server.let_in(RenewedContext(files)) == "first"


@pytest.mark.parametrize(
    ("issued", "fault"),
    [
        (AUTHORITY.issue("kafka", "127.0.0.1", seconds=-60), "has expired"),
        (AUTHORITY.issue("kafka", "kafka.test"), "is for another name than 127.0.0.1"),
        (OTHER.issue("kafka", "127.0.0.1"), "is of an unknown authority, none in"),
        (
            AUTHORITY.issue("kafka", "127.0.0.1", strict=False),
            "has a fault (Missing Authority Key Identifier)",
        ),
    ],
    ids=["expired", "name", "authority", "form"],
)
async def test_a_server_that_is_not_believed_is_named_with_its_fault(
    server: Server, client: Client, issued: Issued, fault: str
) -> None:
    context = RenewedContext(client.files)
    server.show(issued)
    with pytest.raises(TlsRefused) as caught:
        await server.let_in(context)
    assert str(caught.value).startswith(
        f"Kafka at 127.0.0.1 is not believed: its certificate{', or' if 'exp' in fault else ''}"
    )
    assert fault in str(caught.value)
    assert context.fault()[1] == str(caught.value)
    server.show(AUTHORITY.issue("kafka", "127.0.0.1"))
    assert await server.let_in(context) == "first"
    assert context.fault()[1] == ""


@pytest.mark.parametrize(
    ("seconds", "authority", "fault"),
    [(-60, AUTHORITY, "which ended "), (3600, OTHER, "which ends ")],
    ids=["expired", "authority"],
)
async def test_a_server_that_does_not_let_us_in_is_named_with_our_certificate(
    server: Server, client: Client, seconds: float, authority: Authority, fault: str
) -> None:
    context = RenewedContext(client.files)
    issued = client.renew("second", seconds, authority)
    with pytest.raises(TlsRefused) as caught:
        await server.let_in(context)
    assert str(caught.value).startswith(
        f"Kafka at 127.0.0.1 does not accept this process's certificate {client.files.certificate},"
    )
    assert f"{fault}{issued.ends:%Y-%m-%d %H:%M:%S} UTC" in str(caught.value)
    assert context.fault()[1] == str(caught.value)
    client.renew("third")
    assert await server.let_in(context) == "third"
    assert context.fault()[1] == ""


async def test_a_server_that_wants_a_certificate_is_named(server: Server, client: Client) -> None:
    context = RenewedContext(msgspec.structs.replace(client.files, certificate="", key=""))
    with pytest.raises(TlsRefused, match="may want a client certificate, and none is set"):
        await server.let_in(context)


@pytest.mark.parametrize("answer", [b"-ERR unknown command\r\n", b""], ids=["words", "nothing"])
async def test_a_server_without_tls_is_named(client: Client, answer: bytes) -> None:
    async def be_rude(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(answer)
        writer.close()

    context = RenewedContext(client.files)
    async with await asyncio.start_server(be_rude, "127.0.0.1", 0) as rude:
        port = rude.sockets[0].getsockname()[1]
        with pytest.raises(OSError):  # noqa: PT011 - who says nothing is an error of the network
            await asyncio.open_connection("127.0.0.1", port, ssl=context)
    assert context.fault()[1] == (
        "Kafka at 127.0.0.1 does not complete a TLS handshake: does it speak TLS on this port?"
    )


async def test_files_that_cannot_be_used_to_begin_with_are_an_error(
    client: Client, tmp_path: Path
) -> None:
    for missing in (tmp_path / "nowhere.crt", tmp_path):  # a folder without *.crt
        with pytest.raises(FileNotFoundError):
            RenewedContext(msgspec.structs.replace(client.files, authority=str(missing)))


def test_when_certificates_end_is_a_metric(client: Client) -> None:
    """Of a renewed certificate the new end is shown, although no connection was made since."""

    def shown(role: str, file: str) -> float | None:
        labels = {"server": "kafka", "role": role, "file": file}
        return REGISTRY.get_sample_value("microfin_certificate_end_timestamp_seconds", labels)

    authority, user = client.authority.path("ca.crt"), client.files.certificate
    renewed_context(client.files)
    issued = client.renew("second", seconds=7200)
    assert shown("client", user) == issued.ends.timestamp()
    assert shown("authority", authority) == AUTHORITY.ends.timestamp()

    client.authority.put({"ca.crt": OTHER.certificate, "ca-old.crt": AUTHORITY.certificate})
    assert shown("authority", authority) == OTHER.ends.timestamp()
    assert shown("authority", client.authority.path("ca-old.crt")) == AUTHORITY.ends.timestamp()
    client.authority.put({"ca.crt": OTHER.certificate})
    assert shown("authority", client.authority.path("ca-old.crt")) is None

    # What is not used is not shown.
    client.user.put({"user.crt": OTHER.issue("third").certificate, "user.key": b"no key"})
    assert shown("client", user) == issued.ends.timestamp()


def settings_in_files(
    monkeypatch: pytest.MonkeyPatch, folder: Path, **texts: str
) -> CommonSettings:
    for name, text in texts.items():
        (folder / name).write_text(text)
        monkeypatch.delenv(f"MICROFIN_{name.upper()}", raising=False)
        monkeypatch.setenv(f"MICROFIN_{name.upper()}_FILE", str(folder / name))
    return CommonSettings()


async def test_a_databases_password_is_read_again(
    platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = await asyncpg.connect(platform.postgres_direct(role="postgres"))
    await owner.execute("CREATE ROLE renewed LOGIN PASSWORD 'first'")
    place = platform.postgres_direct().rpartition("@")[2]
    settings = settings_in_files(
        monkeypatch, tmp_path, databases=f"postgresql://renewed:first@{place}\n"
    )
    pool = await connect_pool(settings.database_urls[0], settings)
    try:
        assert await pool.fetchval("SELECT current_user") == "renewed"
        await owner.execute("ALTER ROLE renewed PASSWORD 'second'")
        await pool.expire_connections()
        with pytest.raises(asyncpg.InvalidPasswordError):
            await pool.fetchval("SELECT 1")

        (tmp_path / "databases").write_text(f"postgresql://renewed:second@{place}")
        assert await pool.fetchval("SELECT current_user") == "renewed"

        # Another place is not gone to, and an empty file is not believed.
        for text in ("postgresql://renewed:second@127.0.0.1:1/elsewhere", ""):
            (tmp_path / "databases").write_text(text)
            await owner.execute("ALTER ROLE renewed PASSWORD 'first'")
            await pool.expire_connections()
            assert await pool.fetchval("SELECT current_user") == "renewed"
    finally:
        pool.terminate()
        await owner.execute("DROP ROLE renewed")
        await owner.close()


async def test_a_redis_password_is_read_again(
    platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = platform.endpoints.redis

    async def on_all(*words: str) -> None:
        for url in nodes:
            async with Redis.from_url(url) as node:
                await node.execute_command(*words)

    place = nodes[0].removeprefix("redis://")
    await on_all("ACL", "SETUSER", "renewed", "reset", "on", ">first", "~*", "&*", "+@all")
    settings = settings_in_files(monkeypatch, tmp_path, redis=f"redis://renewed:first@{place}")
    redis = GuardedRedis(settings)
    try:
        await redis.set("renewed", b"first", seconds=60)
        await on_all("ACL", "SETUSER", "renewed", "resetpass", ">second")
        await on_all("CLIENT", "KILL", "USER", "renewed")
        (tmp_path / "redis").write_text(f"redis://renewed:second@{place}")
        await asyncio.sleep(0.1)
        await redis.set("renewed", b"second", seconds=60)
        assert await redis.get("renewed") == b"second"
    finally:
        await redis.close()
        await on_all("ACL", "DELUSER", "renewed")


def test_what_did_not_come_from_the_file_is_not_read_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings_in_files(monkeypatch, tmp_path, redis="redis://file:7000")
    assert CommonSettings().renewed_urls("redis") == ["redis://file:7000"]
    assert CommonSettings(redis="redis://said:1").renewed_urls("redis") == ["redis://said:1"]
    monkeypatch.setenv("MICROFIN_REDIS", "redis://variable:1")
    assert CommonSettings().renewed_urls("redis") == ["redis://variable:1"]
