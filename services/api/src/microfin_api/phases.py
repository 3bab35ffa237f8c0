"""How long one command spends in each phase in this process (`docs/reference/metrics.md`)."""

import time
from typing import Final

from microfin.process.phase_seconds import seconds_until_appended
from microfin_api import metrics

_ADMIT: Final = metrics.PHASE_SECONDS["admit"]
_PRODUCE: Final = metrics.PHASE_SECONDS["produce"]
_WAIT: Final = metrics.PHASE_SECONDS["wait"]
_RESPOND: Final = metrics.PHASE_SECONDS["respond"]


class CommandPhases:
    """The moments of one command, from which its phases follow.

    They are differences of consecutive moments of one clock, so their sum is the request's time in
    `microfin_api_request_seconds`. All are observed or none: only for a command that was answered
    with its outcome and acknowledged by the broker. The acknowledgement may come later.
    """

    __slots__ = ("_begun", "_ended", "_produced", "_sent", "_sent_at", "_settled")

    def __init__(self, begun: float) -> None:
        self._begun = begun
        self._sent = self._sent_at = 0.0
        self._produced: float | None = None
        self._settled: float | None = None
        self._ended: float | None = None

    def sent(self) -> None:
        """Note that the command is handed to the producer."""
        self._sent, self._sent_at = time.monotonic(), time.time() * 1000

    def acknowledged(self, appended: int) -> None:
        """Note that the broker has acknowledged the command, with its append time."""
        after = time.monotonic() - self._sent
        self._produced = seconds_until_appended(self._sent_at, appended, after)
        self._observe()

    def settled(self, moment: float) -> None:
        """Note when this process learned the outcome."""
        self._settled = moment

    def ended(self, now: float) -> None:
        """Note that the request has been answered."""
        self._ended = now
        self._observe()

    def _observe(self) -> None:
        if self._produced is None or self._settled is None or self._ended is None:
            return
        waited = self._settled - self._sent
        produced = min(self._produced, waited)
        _ADMIT.observe(self._sent - self._begun)
        _PRODUCE.observe(produced)
        _WAIT.observe(waited - produced)
        _RESPOND.observe(self._ended - self._settled)
