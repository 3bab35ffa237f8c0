"""What the database client raises when a server goes away, and how it is understood."""

import asyncio
import struct

import asyncpg
import pytest

from microfin.postgres.connections import connect_pool, is_connection_loss, read_snapshot
from microfin.process.settings import CommonSettings

_AUTHENTICATED = b"R" + struct.pack("!ii", 8, 0)
_READY = b"Z" + struct.pack("!i", 5) + b"I"
_GONE = b"SFATAL\0VFATAL\0C08P01\0Mserver conn crashed?\0\0"


def _setting(name: str, value: str) -> bytes:
    text = f"{name}\0{value}\0".encode()
    return b"S" + struct.pack("!i", 4 + len(text)) + text


class DyingPooler:
    """Accepts a connection, then says that the server is gone: a pooler hangs up after that, but
    a caller that uses the connection in between must not get an error."""

    def __init__(self) -> None:
        self.said = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        (length,) = struct.unpack("!i", await reader.readexactly(4))
        await reader.readexactly(length - 4)
        writer.write(_AUTHENTICATED + _setting("server_version", "15.0") + _READY)
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.write(b"E" + struct.pack("!i", 4 + len(_GONE)) + _GONE)
        await writer.drain()
        await asyncio.sleep(0.05)
        self.said.set()
        await reader.read()
        writer.close()


async def test_a_connection_that_said_goodbye_is_a_connection_loss() -> None:
    pooler = DyingPooler()
    async with await asyncio.start_server(pooler.serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        settings = CommonSettings(database_timeout=1.0)
        pool = await connect_pool(
            f"postgresql://u@127.0.0.1:{port}/d?sslmode=disable", settings, least=1
        )
        try:
            await asyncio.wait_for(pooler.said.wait(), 5)
            with pytest.raises(asyncpg.InternalClientError) as caught:
                async with read_snapshot(pool):
                    pass
        finally:
            pool.terminate()
    assert is_connection_loss(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError(),
        TimeoutError(),
        asyncpg.InterfaceError("connection is closed"),
        asyncpg.AdminShutdownError("terminating connection"),
        asyncpg.DiskFullError("could not extend file"),
    ],
    ids=repr,
)
def test_connection_losses(error: Exception) -> None:
    assert is_connection_loss(error)


@pytest.mark.parametrize(
    "error",
    [asyncpg.UniqueViolationError("duplicate"), asyncpg.UndefinedTableError("no"), ValueError()],
    ids=repr,
)
def test_other_errors(error: Exception) -> None:
    assert not is_connection_loss(error)
