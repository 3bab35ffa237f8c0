"""Which API processes may believe their memories of sessions, and so must hear of an end.

Pure bookkeeping about one subscription to the channel of ended sessions. A process believes its
memory for `HEARD_SECONDS` after a beat of its own. Every beat reaches us too. So once we have
listened for that long, we know all who may believe, and the end is known when all of them have said
that they have heard it.
"""

from typing import Final

from microfin.redis.ended_channel import HEARD_SECONDS

_MOST: Final = 1_000
"""Processes that we count. With more, made up by somebody, an end waits until its time is over."""


class Listeners:
    """The other processes on the channel, and the ends of ours that they have yet to hear.

    `process` is our own name. Times are seconds of a monotonic clock.
    """

    def __init__(self, process: bytes, joined: float) -> None:
        self._process = process
        self._complete_from = joined + HEARD_SECONDS
        self._beats: dict[bytes, float] = {}
        self._missing: dict[bytes, set[bytes]] = {}

    def beat(self, process: bytes, now: float) -> None:
        """Note the beat of a process."""
        if process == self._process:
            return
        self._beats.pop(process, None)
        self._beats[process] = now
        while self._beats and next(iter(self._beats.values())) + HEARD_SECONDS < now:
            del self._beats[next(iter(self._beats))]
        if len(self._beats) > _MOST:
            self._beats.clear()
            self._complete_from = now + HEARD_SECONDS

    def end(self, identity: bytes, now: float) -> bool:
        """Note that our own message has come back; return whether all have heard it."""
        if now < self._complete_from:
            return False
        missing = {it for it, beat in self._beats.items() if beat + HEARD_SECONDS >= now}
        if missing:
            self._missing[identity] = missing
        return not missing

    def heard(self, process: bytes, identity: bytes) -> bool:
        """Note that a process has heard our message; return whether it was the last one."""
        missing = self._missing.get(identity)
        if missing is None:
            return False
        missing.discard(process)
        if missing:
            return False
        del self._missing[identity]
        return True

    def forget(self, identity: bytes) -> None:
        """Wait for nobody any more."""
        self._missing.pop(identity, None)
