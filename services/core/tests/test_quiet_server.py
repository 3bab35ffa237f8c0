"""The server's main loop: it sleeps until somebody wants an end, and yet its dates are right."""

import asyncio
import signal
import socket
from types import FrameType

import httpx
import pytest
import uvicorn
from starlette.responses import PlainTextResponse

from microfin.process import quiet_server
from microfin.process.quiet_server import QuietServer


class Server(QuietServer, uvicorn.Server):
    """Counts its looks."""

    looks = 0

    async def on_tick(self, counter: int) -> bool:
        """Note the look."""
        self.looks += 1
        return await super().on_tick(counter)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End as uvicorn does, and at once."""
        super().handle_exit(sig, frame)
        self.look_soon()


@pytest.fixture
def server() -> Server:
    return Server(
        uvicorn.Config(PlainTextResponse("here"), port=0, log_config=None, lifespan="off")
    )


async def test_it_looks_when_it_begins_and_when_it_ends(server: Server) -> None:
    looping = asyncio.create_task(server.main_loop())
    await asyncio.sleep(1.5)  # uvicorn would have looked fifteen times
    assert server.looks == 1
    server.handle_exit(signal.SIGTERM, None)
    async with asyncio.timeout(10):
        await looping
    assert server.looks == 2


async def test_each_answer_has_its_own_date(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though nothing woke the server up between them."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        serving = asyncio.create_task(server.serve([listening]))
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        async with asyncio.timeout(10), httpx.AsyncClient() as client:
            dates = []
            for moment in (0.0, 0.9, 1.0, 86_400.0):
                monkeypatch.setattr(quiet_server.time, "time", lambda now=moment: now)
                dates.append((await client.get(url)).headers.get_list("date"))
            server.should_exit = True
            server.look_soon()
            await serving
    assert dates == [
        ["Thu, 01 Jan 1970 00:00:00 GMT"],
        ["Thu, 01 Jan 1970 00:00:00 GMT"],
        ["Thu, 01 Jan 1970 00:00:01 GMT"],
        ["Fri, 02 Jan 1970 00:00:00 GMT"],
    ]
