"""The server's main loop: it looks rarely, and yet an end is noticed at once."""

import asyncio
import signal
from types import FrameType

import pytest
import uvicorn

from microfin.process import second_ticks
from microfin.process.second_ticks import SecondTicks


class Server(SecondTicks, uvicorn.Server):
    """Counts its ticks, and the dates that it made."""

    ticks = 0
    dates = 0
    most_ticks = 0  # then it ends by itself, unless it is 0

    async def on_tick(self, counter: int) -> bool:
        """Note the tick."""
        self.server_state.default_headers = []
        ended = await super().on_tick(counter)
        self.ticks += 1
        self.dates += [name for name, _ in self.server_state.default_headers].count(b"date")
        return ended or self.ticks == self.most_ticks

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End as uvicorn does, and at once."""
        super().handle_exit(sig, frame)
        self.tick_soon()


@pytest.fixture
def server() -> Server:
    async def application(*_: object) -> None: ...

    return Server(uvicorn.Config(application, port=0, log_config=None, lifespan="off"))


async def test_an_end_does_not_wait_for_the_next_tick(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(second_ticks, "_SECONDS", 3_600.0)
    looping = asyncio.create_task(server.main_loop())
    await asyncio.sleep(0)
    server.handle_exit(signal.SIGTERM, None)
    async with asyncio.timeout(10):
        await looping
    assert server.ticks == 2


async def test_every_tick_renews_the_date_of_the_answers(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(second_ticks, "_SECONDS", 0.001)
    server.most_ticks = 5
    async with asyncio.timeout(10):
        await server.main_loop()
    assert server.dates == 5
