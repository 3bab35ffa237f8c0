"""How a process ends: first its clients leave, then it stops.

A client that keeps a connection open learns of the end only when the connection is closed, and
loses a request that it has just sent. So for some seconds before the end the process still serves
everything, but every answer has `Connection: close`, and /readyz answers 503.
"""

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
        self._is_over = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain at the first signal, stop at the second."""
        if self.is_serving and self._seconds and not self._drain.begun:
            self._drain.begun = True
            self.call_in(self._seconds, self._end)
            return
        super().handle_exit(sig, frame)
        self.look_soon()

    async def on_tick(self, counter: int) -> bool:
        """Return whether the time has come to stop."""
        return self._is_over or await super().on_tick(counter)

    def _end(self) -> None:
        """Stop. The timer alone decides: it may end before another clock shows its time."""
        self._is_over = True
        self.look_soon()
