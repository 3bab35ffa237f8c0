"""Sessions as PostgreSQL had them, kept in Redis for a minute under a seal.

Anybody who can write to Redis can leave anything under a session's key. So an entry carries the
API's own seal (`microfin.redis.seal`), over the key, the user, the end and the time of caching. An
entry without it, or older than a minute, counts as missing.

A session that ends leaves a tombstone (`microfin.redis.ended_sessions`). A row that was read from
PostgreSQL before that is not cached over it: an entry only replaces the value that its reader had
found.
"""

import contextlib
import time
from typing import Final

import msgspec

from microfin.process.settings import ApiSettings
from microfin.redis.ended_sessions import TOMBSTONE, session_key
from microfin.redis.guarded import GuardedRedis, RedisUnavailable
from microfin.redis.seal import BELIEVED_SECONDS, Seal, is_fresh

_PUT_IN_PLACE_OF: Final = """
local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
return 1
"""


class Session(msgspec.Struct, frozen=True, gc=False):
    """Who is signed in, and until when (seconds since the Unix epoch)."""

    user: str
    expires: int


class _Entry(msgspec.Struct, frozen=True, gc=False):
    """A session as it was read from PostgreSQL at `cached`, in milliseconds since the epoch."""

    user: str
    expires: int
    cached: int


class Found(msgspec.Struct, frozen=True, gc=False):
    """The session in Redis, if there is a valid one, and the value there (empty if none).

    `cached` is when PostgreSQL had it, in milliseconds since the epoch. `asked`: Redis answered.
    """

    session: Session | None
    held: bytes
    cached: int = 0
    asked: bool = True


_NOTHING: Final = Found(None, b"")
_NOT_ASKED: Final = Found(None, b"", asked=False)
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Entry).decode


class SessionCache:
    """Reads and writes `session:{hash of the id}`."""

    def __init__(self, settings: ApiSettings, redis: GuardedRedis) -> None:
        self._seal = Seal(settings.secret, "cached-session")
        self._redis = redis

    async def get(self, token_hash: bytes) -> Found:
        """Return what Redis has under a session's key: a valid session, or another value."""
        key = session_key(token_hash)
        try:
            held = await self._redis.get(key)
        except RedisUnavailable:
            return _NOT_ASKED
        if not held:
            return _NOTHING
        entry = self._believe(key, held)
        if entry is None:
            return Found(None, held)
        return Found(Session(entry.user, entry.expires), held, entry.cached)

    async def put(self, token_hash: bytes, session: Session, read_at: int, held: bytes) -> None:
        """Cache a session as PostgreSQL had it at `read_at` or later, in the place of `held`.

        Never fails. Nothing replaces a tombstone.
        """
        if held == TOMBSTONE:
            return
        key = session_key(token_hash)
        entry = _encode(_Entry(session.user, session.expires, read_at))
        sealed = self._seal.close(key.encode(), entry)
        call = (key, (held, sealed, b"%d" % BELIEVED_SECONDS))
        with contextlib.suppress(RedisUnavailable):
            await self._redis.evaluate(_PUT_IN_PLACE_OF, [call])

    def _believe(self, key: str, held: bytes) -> _Entry | None:
        document = self._seal.open(key.encode(), held)
        if document is None:
            return None
        try:
            entry, at = _decode(document), now()
        except msgspec.MsgspecError:  # sealed by another release
            return None
        if not is_fresh(entry.cached, at) or entry.expires * 1000 <= at:
            return None
        return entry


def seconds_left(session: Session, cached: int) -> float:
    """Return for how long a session that PostgreSQL had at `cached` may be believed from now on."""
    until = min(cached + BELIEVED_SECONDS * 1000, session.expires * 1000)
    return (until - now()) / 1000


def now() -> int:
    """Return milliseconds since the Unix epoch."""
    return time.time_ns() // 1_000_000
