"""How a process ends: first its clients leave, then it stops.

A client that keeps a connection open learns of the end only when the connection is closed, and
loses a request that it has just sent. So for some seconds before the end the process still serves
everything, but every answer has `Connection: close`, and /readyz answers 503.
"""

import time
from types import FrameType

import uvicorn

from microfin.process.quiet_server import QuietServer


class Drain:
    """Whether this process is about to end."""

    def __init__(self) -> None:
        self.begun = False


class DrainingServer(QuietServer, uvicorn.Server):
    """Serves for `seconds` more after a signal to stop; a second signal stops it at once."""

    def __init__(self, config: uvicorn.Config, drain: Drain, seconds: float) -> None:
        super().__init__(config)
        self._drain = drain
        self._seconds = seconds
        self._ends_at: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain at the first signal, stop at the second."""
        if self.started and self._seconds and self._ends_at is None:
            self._drain.begun = True
            self._ends_at = time.monotonic() + self._seconds
            self.look_soon(self._seconds)
            return
        super().handle_exit(sig, frame)
        self.look_soon()

    async def on_tick(self, counter: int) -> bool:
        """Return whether the time has come to stop."""
        if self._ends_at is not None and time.monotonic() >= self._ends_at:
            return True
        return await super().on_tick(counter)
