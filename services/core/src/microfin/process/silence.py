"""How long a part of the platform has not answered this process, and the sentence that says so.

A part that is cut off refuses nothing and closes nothing: it is silent. Only a request that is not
answered shows that. So every process asks each part again and again, or has work that does.
"""

import time
from typing import Final, Literal

from prometheus_client import Gauge

from microfin.process.renewed_tls import tls_fault

SAID_AFTER: Final = 5.0
"""Seconds of silence after which a process says so: in `/status`, `/readyz` and by its state."""

Part = Literal["Kafka", "PostgreSQL", "Redis"]

_SECONDS: Final = Gauge(
    "microfin_dependency_silent_seconds",
    "Seconds for which a part has not answered this process, 0 while it answers.",
    ["dependency", "shard"],
)
_ADVICE: Final[dict[Part, str]] = {
    "Kafka": "do its brokers run, may this process reach them, and is its certificate valid?",
    "PostgreSQL": "do it and its pooler run, and may this process reach them?",
    "Redis": "do its nodes run, and may this process reach them?",
}


class Silence:
    """The silence of one part. It ends with any answer, also to a later request.

    `every` are the seconds between two requests while nothing is wrong. The silence began with the
    last answer, but at most this long before the first request without an answer: a process that
    had no reason to ask does not know more. `shard` is PostgreSQL's.
    """

    def __init__(self, part: Part, every: float, shard: int | None = None) -> None:
        self.part: Part = part
        self._every = every
        self._answered = time.monotonic()
        self._since: float | None = None
        labels = (part.lower(), "" if shard is None else str(shard))
        _SECONDS.labels(*labels).set_function(self.seconds)

    def ask(self) -> None:
        """Note that a request is about to be sent."""
        if self._since is None:
            self._since = max(self._answered, time.monotonic() - self._every)

    def answered(self, moment: float | None = None) -> None:
        """Note an answer that came at `moment` (monotonic), or now."""
        if moment is None:
            moment = time.monotonic()
        self._answered = max(self._answered, moment)
        if self._since is not None and self._since < moment:
            self._since = None

    def seconds(self) -> float:
        """Return for how many seconds there has been no answer; 0 if none is due."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since

    @property
    def sentence(self) -> str:
        """What a process says of a long silence: what TLS refuses there, or what to look at."""
        return f"{self.part} does not answer: {tls_fault(self.part) or _ADVICE[self.part]}"

    @property
    def long(self) -> bool:
        """Whether the silence is so long that the process says it."""
        return self.seconds() > SAID_AFTER
