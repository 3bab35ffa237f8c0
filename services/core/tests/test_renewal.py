"""Every new connection reads certificates and passwords again if they have changed."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio
import trustme
from redis.asyncio import Redis

from microfin.kafka.renewed_tls import RenewedContext
from microfin.postgres.connections import connect_pool
from microfin.process.settings import CommonSettings
from microfin.redis.guarded import GuardedRedis
from microfin_local.platform import Platform


class Server:
    """Lets in only whom its authority has given a certificate, and says whom it let in."""

    def __init__(self) -> None:
        self.authority = trustme.CA()

    def issue(self, name: str, folder: Path) -> None:
        issued = self.authority.issue_cert(name, common_name=name)
        issued.cert_chain_pems[0].write_to_path(folder / "user.pem")
        issued.private_key_pem.write_to_path(folder / "user.key")

    async def __aenter__(self) -> "Server":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.authority.issue_cert("127.0.0.1").configure_cert(context)
        self.authority.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
        self._server = await asyncio.start_server(self._send_name, "127.0.0.1", 0, ssl=context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _send_name(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        names = dict(pair[0] for pair in writer.get_extra_info("peercert")["subject"])
        writer.write(names["commonName"].encode())
        writer.close()

    async def let_in(self, context: ssl.SSLContext) -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=context)
        name = await reader.read()
        writer.close()
        return name.decode()


@pytest_asyncio.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with Server() as server:
        server.authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        server.issue("first", tmp_path)
        yield server


def context_of(folder: Path) -> RenewedContext:
    return RenewedContext(*(str(folder / name) for name in ("ca.pem", "user.pem", "user.key")))


async def test_a_renewed_certificate_is_shown(server: Server, tmp_path: Path) -> None:
    context = context_of(tmp_path)
    assert await server.let_in(context) == "first"
    server.issue("second", tmp_path)
    assert await server.let_in(context) == "second"


async def test_half_a_pair_is_not_used(server: Server, tmp_path: Path) -> None:
    context = context_of(tmp_path)
    key = (tmp_path / "user.key").read_bytes()
    server.issue("second", tmp_path)
    new_key = (tmp_path / "user.key").read_bytes()
    (tmp_path / "user.key").write_bytes(key)
    assert await server.let_in(context) == "first"
    (tmp_path / "user.key").unlink()
    assert await server.let_in(context) == "first"
    (tmp_path / "user.key").write_bytes(new_key)
    assert await server.let_in(context) == "second"


async def test_a_new_authority_is_believed_and_the_old_one_is_not(
    server: Server, tmp_path: Path
) -> None:
    """What was only added to a context would be believed for as long as the process lives."""
    context = context_of(tmp_path)
    trustme.CA().cert_pem.write_to_path(tmp_path / "ca.pem")
    with pytest.raises(ssl.SSLCertVerificationError):
        await server.let_in(context)
    server.authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    assert await server.let_in(context) == "first"


async def test_files_that_cannot_be_used_to_begin_with_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        context_of(tmp_path)


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
