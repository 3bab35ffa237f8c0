"""Every fault of the proxy does to a connection what it says."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from faults.proxy import ProxyControl
from microfin_local.ports import Ports

WAY = "here-there"
PROXY = Path(__file__).with_name("proxy.py")


class Echo:
    """A server that sends back what it gets, through a proxy of its own process."""

    def __init__(self, folder: Path) -> None:
        ports = Ports(folder / "ports.json", random_ports=True)
        self.port, self.target, control = (ports.choose(it, 0) for it in ("way", "echo", "control"))
        self.control = ProxyControl(control)
        self._file = folder / "ways.json"
        way = {"name": WAY, "port": self.port, "target": self.target}
        self._file.write_text(json.dumps({"control": control, "ways": [way]}))
        self.over = asyncio.Event()

    async def run(self) -> AsyncIterator["Echo"]:
        await self.begin()
        proxy = await asyncio.create_subprocess_exec(sys.executable, "-P", PROXY, self._file)
        try:
            async with asyncio.timeout(10):
                while not await self._ready():  # noqa: ASYNC110 - it is another process
                    await asyncio.sleep(0.02)
            yield self
        finally:
            proxy.kill()
            await proxy.wait()
            await self.end()

    async def begin(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._echo, "127.0.0.1", self.target)

    async def end(self) -> None:
        """Do not listen any more."""
        self._server.close()

    async def _ready(self) -> bool:
        try:
            await self.control.put([WAY], "none")
        except OSError:
            return False
        return True

    async def _echo(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1000):
                writer.write(data)
        except ConnectionError:
            pass
        self.over.set()
        writer.close()

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)


@pytest.fixture
async def echo(tmp_path: Path) -> AsyncIterator[Echo]:
    async for it in Echo(tmp_path).run():
        yield it


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, word: bytes) -> bytes:
    writer.write(word)
    return await asyncio.wait_for(reader.readexactly(len(word)), 5)


async def is_silent(reader: asyncio.StreamReader) -> bool:
    try:
        await asyncio.wait_for(reader.read(1), 0.3)
    except TimeoutError:
        return True
    return False


async def test_drop_breaks_what_there_is_and_what_comes(echo: Echo) -> None:
    here = await echo.connect()
    assert await ask(*here, b"one") == b"one"
    await echo.control.put([WAY], "drop")
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await ask(*here, b"two")
    another = await echo.connect()
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await ask(*another, b"three")
    await echo.control.put([WAY], "none")
    assert await ask(*await echo.connect(), b"four") == b"four"


async def test_delay_keeps_the_order(echo: Echo) -> None:
    reader, writer = await echo.connect()
    await echo.control.put([WAY], "delay", 0.2)
    writer.write(b"a")
    writer.write(b"b")
    await echo.control.put([WAY], "delay", 0.01)
    writer.write(b"c")
    assert await asyncio.wait_for(reader.readexactly(3), 5) == b"abc"


async def test_hold_keeps_everything_until_it_ends(echo: Echo) -> None:
    reader, writer = await echo.connect()
    await echo.control.put([WAY], "hold")
    writer.write(b"kept")
    assert await is_silent(reader)
    await echo.control.put([WAY], "none")
    assert await asyncio.wait_for(reader.readexactly(4), 5) == b"kept"


async def test_vanish_leaves_connections_half_open_for_good(echo: Echo) -> None:
    reader, writer = await echo.connect()
    await echo.control.put([WAY], "vanish")
    writer.write(b"gone")
    new_reader, new_writer = await echo.connect()
    new_writer.write(b"gone, too")
    assert await is_silent(reader)
    await echo.control.put([WAY], "none")
    writer.write(b"more")
    assert await is_silent(reader)
    assert await is_silent(new_reader)
    assert await ask(*await echo.connect(), b"new") == b"new"


async def test_a_part_that_is_not_there_is_refused(echo: Echo) -> None:
    await echo.end()
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await ask(*await echo.connect(), b"first")
    with pytest.raises(ConnectionRefusedError):
        await echo.connect()
    await echo.begin()
    async with asyncio.timeout(10):
        while True:
            try:
                here = await echo.connect()
            except ConnectionRefusedError:
                await asyncio.sleep(0.02)
            else:
                break
    assert await ask(*here, b"again") == b"again"


async def test_orders_that_cannot_be_are_refused(echo: Echo) -> None:
    with pytest.raises(ValueError, match="no way"):
        await echo.control.put(["nowhere"], "drop")
    with pytest.raises(ValueError, match="no fault"):
        await echo.control.put([WAY], "explode")


async def test_an_order_that_fails_is_answered_with_the_error(echo: Echo) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", echo.control.port)
    writer.write(b'{"fault": "none"}\n{"fault": "none", "ways": []}\n')
    async with asyncio.timeout(5):
        assert await reader.readline() == b"KeyError('ways')\n"
        assert await reader.readline() == b"ok\n"
    writer.close()


async def test_a_half_open_connection_ends_for_the_other_end_too(echo: Echo) -> None:
    """As by keepalives, which the proxy would answer for as long as it lives."""
    reader, writer = await echo.connect()
    writer.write(b"here")
    assert await reader.readexactly(4) == b"here"
    await echo.control.put([WAY], "vanish")
    writer.close()
    await echo.control.put([WAY], "none")
    async with asyncio.timeout(60):
        await echo.over.wait()
