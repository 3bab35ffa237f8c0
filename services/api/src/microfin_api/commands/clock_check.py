"""Compares this machine's clock with the broker's: deadlines and signatures rely on it."""

import time
from typing import Final

TOLERANCE_SECONDS: Final = 5.0
_BELIEVED_SECONDS: Final = 30.0  # an older finding does not make the process unready


class ClockCheck:
    """Remembers how far the last append time of the broker was outside our times around it."""

    def __init__(self) -> None:
        self._difference = 0.0
        self._found = -_BELIEVED_SECONDS

    def observe(self, sent: float, appended: int) -> None:
        """Note that a command sent at `sent` (our seconds) was appended at `appended` (ms)."""
        broker, now = appended / 1000, time.time()
        self._difference = min(0.0, broker - sent) + max(0.0, broker - now)
        self._found = time.monotonic()

    def faults(self) -> list[str]:
        """Return what is wrong with the clock, if anything."""
        recent = time.monotonic() - self._found < _BELIEVED_SECONDS
        if not recent or abs(self._difference) <= TOLERANCE_SECONDS:
            return []
        difference = abs(self._difference)
        return [f"this machine's clock and Kafka's differ by {difference:.1f} s: synchronise them"]
