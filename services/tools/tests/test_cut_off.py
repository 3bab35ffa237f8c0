"""A command that gets no answer ends with a sentence that names who is silent."""

import asyncio
import socket
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
import pytest_asyncio

from microfin_local.platform import Platform
from microfin_tools.audit.shard import open_shards
from microfin_tools.migrations.run import migrate
from support.cli import microfin

COMMANDS = {
    "microfin audit": ("audit",),
    "microfin migrate": ("migrate", "--partitions", "2"),
    "microfin log trim": ("log", "trim"),
    "microfin routing grow": ("routing", "grow", "--partitions", "4"),
    "microfin topic grow": ("topic", "grow", "--partitions", "4"),
}
ASK_KAFKA = ("microfin log trim", "microfin routing grow", "microfin topic grow")
DEADLINE = 60
"""Seconds that no command may take: it would take them for ever otherwise."""


@pytest_asyncio.fixture
async def silent() -> AsyncIterator[int]:
    """Give a port where somebody accepts each connection, and never answers."""
    ended = asyncio.Event()

    async def hear(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await ended.wait()
        writer.close()

    server = await asyncio.start_server(hear, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    ended.set()
    server.close()


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "microfin topic grow"])
async def test_a_silent_database_ends_the_command(
    platform: Platform, silent: int, name: str
) -> None:
    url = f"postgresql://microfin:secret@127.0.0.1:{silent}/microfin"
    environment = {
        **platform.environment("operator"),
        "MICROFIN_DATABASES": url,
        "MICROFIN_DATABASES_DIRECT": url,
    }
    async with asyncio.timeout(DEADLINE):
        ran = await microfin(environment, *COMMANDS[name])
    assert ran.code == 2, ran.output
    assert "The database could not be" in ran.errors
    assert "secret" not in ran.errors


@pytest.mark.parametrize("name", ASK_KAFKA)
async def test_a_silent_kafka_ends_the_command(platform: Platform, silent: int, name: str) -> None:
    database = f"silent_{uuid4().hex[:8]}"
    await platform.create_database(database)
    await asyncio.to_thread(migrate, [platform.postgres_direct(database=database)], 2)
    environment = {
        **platform.environment("operator", database),
        "MICROFIN_KAFKA": f"127.0.0.1:{silent}",
    }
    async with asyncio.timeout(DEADLINE):
        ran = await microfin(environment, *COMMANDS[name])
    assert ran.code == 2, ran.output
    assert "Kafka did not answer" in ran.errors


async def test_the_auditors_connections_end_with_the_servers_machine(platform: Platform) -> None:
    """Its queries have no deadline."""
    database = f"ends_{uuid4().hex[:8]}"
    await platform.create_database(database)
    url = platform.postgres_direct(database=database)
    await asyncio.to_thread(migrate, [url], 2)
    async with open_shards([url]) as [shard]:
        connected = shard.connection._transport.get_extra_info("socket")
        assert connected.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 15_000
