"""How a process leaves: its clients go first, then it ends.

A client that keeps its connection open learns that the process ends only when the connection is
closed, and a request that it has just sent is then lost to it. So for some seconds before the end
everything is still served, but every answer says `Connection: close`, and /readyz says no.
"""

import time
from types import FrameType

import uvicorn


class Drain:
    """Whether this process is about to end."""

    def __init__(self) -> None:
        self.begun = False


class DrainingServer(uvicorn.Server):
    """Serves for `seconds` more when it is told to stop; told twice, it stops at once."""

    def __init__(self, config: uvicorn.Config, drain: Drain, seconds: float) -> None:
        super().__init__(config)
        self._drain = drain
        self._seconds = seconds
        self._ends_at: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Be told by a signal to stop."""
        if self.started and self._seconds and self._ends_at is None:
            self._drain.begun = True
            self._ends_at = time.monotonic() + self._seconds
            return
        super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        """Return whether the time has come to stop."""
        if self._ends_at is not None and time.monotonic() >= self._ends_at:
            return True
        return await super().on_tick(counter)
