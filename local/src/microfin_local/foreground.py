"""Runs a platform until a signal asks it to stop."""

import asyncio
import os
import signal
from collections.abc import Callable

from microfin_local.configuration import Configuration
from microfin_local.endpoints import Endpoints
from microfin_local.growth import SIGNAL, grant
from microfin_local.ownership import owning
from microfin_local.platform import Platform

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _StopRequest:
    """Set by the first signal; the second one ends this process, and the kernel its children."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def receive(self) -> None:
        """Receive a signal."""
        if self._event.is_set():
            os._exit(130)
        self._event.set()

    async def wait(self) -> None:
        """Wait for the first signal."""
        await self._event.wait()


async def run_until_stopped(
    configuration: Configuration,
    say: Callable[[str], None],
    when_ready: Callable[[Endpoints], None],
) -> None:
    """Start the platform, call `when_ready`, and stop it on SIGINT, SIGTERM or SIGHUP.

    Raises PlatformError if it does not start; then no process is left running.
    """
    with owning(configuration.state):
        request = _StopRequest()
        loop = asyncio.get_running_loop()
        for number in _STOP_SIGNALS:
            loop.add_signal_handler(number, request.receive)
        platform = Platform(configuration, say)
        growing = asyncio.Lock()

        async def grow() -> None:
            async with growing:
                await grant(configuration.state, platform.grow)

        tasks: set[asyncio.Task[None]] = set()
        stop = asyncio.create_task(request.wait())
        start = asyncio.create_task(platform.start())
        try:
            await asyncio.wait({start, stop}, return_when=asyncio.FIRST_COMPLETED)
            if start.done():
                start.result()
                when_ready(platform.endpoints)
                loop.add_signal_handler(SIGNAL, lambda: tasks.add(asyncio.create_task(grow())))
                await stop
                say("stopping (once more ends it at once)")
        finally:
            for task in (start, *tasks):
                task.cancel()
            await asyncio.gather(start, *tasks, return_exceptions=True)
            await platform.stop()
        say("stopped")
