"""How the API's server ends: by its own timer, whatever another clock shows."""

import asyncio
import signal

import pytest
import uvicorn

from microfin_api.http.draining import Drain, DrainingServer


def a_server(seconds: float) -> tuple[DrainingServer, Drain]:
    """Return a server that has started, and its drain."""
    drain = Drain()
    server = DrainingServer(uvicorn.Config(lambda: None), drain, seconds)
    server.started = True
    return server, drain


async def test_it_ends_though_its_timer_was_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """The event loop counts whole milliseconds, and so may call before the clock shows the time.

    A server that then looked at the clock found that it was too early, and nobody looked again.
    """
    server, drain = a_server(3600)
    serving = asyncio.create_task(server.main_loop())
    await asyncio.sleep(0)
    loop = asyncio.get_running_loop()
    with monkeypatch.context() as early:
        early.setattr(loop, "call_later", lambda _, callback: loop.call_soon(callback))
        server.handle_exit(signal.SIGTERM, None)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert drain.begun
    await asyncio.wait_for(serving, 10)


async def test_it_ends_though_the_signal_came_before_its_main_loop() -> None:
    """There is nobody to serve yet: it ends at once."""
    server, _ = a_server(3600)
    server.handle_exit(signal.SIGTERM, None)
    await asyncio.wait_for(server.main_loop(), 10)


async def test_it_serves_on_and_a_second_signal_ends_it_at_once() -> None:
    server, drain = a_server(3600)
    serving = asyncio.create_task(server.main_loop())
    await asyncio.sleep(0)
    server.handle_exit(signal.SIGTERM, None)
    for _ in range(20):  # an end takes a few turns of the loop
        await asyncio.sleep(0)
    assert drain.begun
    assert not serving.done()
    server.handle_exit(signal.SIGTERM, None)
    await asyncio.wait_for(serving, 10)
