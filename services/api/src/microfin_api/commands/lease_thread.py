"""The leases' own thread, so that no renewal queues behind requests.

A renewal takes several turns of an event loop. On a busy machine a turn of the requests' loop takes
hundreds of milliseconds: the lease, which counts from when its renewal was sent, ended before the
loop read the answer. A separate thread gets Python's lock within half a millisecond. See
docs/adr/0022-late-leases.md.
"""

import asyncio
import sys
import threading
from collections.abc import Coroutine
from typing import Any, Final

from microfin_api.commands.leases import Leases

_END_SECONDS: Final = 1.0
_SWITCH_SECONDS: Final = 0.0005
"""After how long the waiting thread gets Python's lock from a busy loop; usually Python's 5 ms, at
each of the renewal's turns."""


class LeaseThread:
    """Renews `leases` in a thread; their users stay on the loop that called `start`."""

    def __init__(self, leases: Leases) -> None:
        self._leases = leases
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="leases", daemon=True)

    async def start(self) -> None:
        """Acquire all leases, or begin to try."""
        sys.setswitchinterval(_SWITCH_SECONDS)
        self._thread.start()
        await self._on_own_loop(self._leases.start(asyncio.get_running_loop()))

    async def stop(self) -> None:
        """Release all leases, and end the thread."""
        if not self._thread.is_alive():
            return
        await self._on_own_loop(self._leases.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        await asyncio.to_thread(self._thread.join)

    async def _on_own_loop(self, coroutine: Coroutine[Any, Any, None]) -> None:
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self._loop))

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            left = asyncio.all_tasks(self._loop)
            for task in left:
                task.cancel()
            if left:
                self._loop.run_until_complete(asyncio.wait(left, timeout=_END_SECONDS))
        finally:
            self._loop.close()
