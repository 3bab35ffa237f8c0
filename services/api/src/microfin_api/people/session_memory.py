"""The sessions that this process remembers, so that most requests ask nobody.

The memory alone does no I/O and knows no other process. From `membership` it knows which
sessions have ended, and until when it knows of all of them. Three rules keep an ended session out:

- It answers only until the moment of `hear_until`.
- What was read is only kept if no end has been heard since the reading began: the read may be older
  than the end.
- It keeps nothing while nobody listens.
"""

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from microfin.redis.ended_channel import ASKED_AGAIN_SECONDS
from microfin_api.people.session_cache import Session

MOST: Final = 10_000
"""Sessions that one process remembers: about 5 MB. It serves fewer in the seconds of their life."""

_NEVER: Final = -math.inf


class Reading(msgspec.Struct, frozen=True, gc=False):
    """A moment before something was read: the time, and the number of ends heard until then."""

    began: float
    ends: int


class _Remembered(msgspec.Struct, frozen=True, gc=False):
    session: Session
    until: float


class SessionMemory:
    """Remembers at most `most` sessions by the hash of their ids. Times are those of `clock`."""

    def __init__(self, most: int = MOST, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._sessions: OrderedDict[bytes, _Remembered] = OrderedDict()
        self._heard_until = _NEVER
        self._listening = False
        self._ends = 0

    def __len__(self) -> int:
        return len(self._sessions)

    def get(self, token_hash: bytes) -> Session | None:
        """Return the session, None if it is not remembered or may have ended."""
        now = self._clock()
        if now >= self._heard_until:
            return None
        found = self._sessions.get(token_hash)
        return None if found is None or now >= found.until else found.session

    def begin(self) -> Reading:
        """Return the moment at which somebody begins to read a session."""
        return Reading(self._clock(), self._ends)

    def keep(self, token_hash: bytes, session: Session, seconds: float, reading: Reading) -> None:
        """Remember a session that was read since `reading`, for `seconds` of its life at most."""
        if not self._listening or reading.ends != self._ends:
            return
        until = reading.began + min(seconds, ASKED_AGAIN_SECONDS)
        self._sessions[token_hash] = _Remembered(session, until)
        self._sessions.move_to_end(token_hash)
        if len(self._sessions) > self._most:
            self._sessions.popitem(last=False)

    def forget(self, token_hashes: Iterable[bytes]) -> None:
        """Forget sessions that have ended."""
        self._ends += 1
        for token_hash in token_hashes:
            self._sessions.pop(token_hash, None)

    def forget_all(self) -> None:
        """Forget all sessions: any of them may have ended."""
        self._ends += 1
        self._sessions.clear()

    def listen(self) -> None:
        """Begin to keep sessions: from now on every end is heard."""
        self.forget_all()
        self._listening = True

    def stop_listening(self) -> None:
        """Forget all, and keep nothing until somebody listens again: ends may be missed."""
        self.forget_all()
        self._listening, self._heard_until = False, _NEVER

    def hear_until(self, moment: float) -> None:
        """Answer until `moment`."""
        self._heard_until = max(self._heard_until, moment)
