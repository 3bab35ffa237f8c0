"""What PostgreSQL said of a session, kept in Redis for a minute under a seal.

Who can write to Redis can leave anything under a session's key. So an entry carries the API's own
seal (`microfin.seal`), over the key, the user, the end and the time of caching. An entry without
it, or older than a minute, counts as missing.
"""

import contextlib
import time

import msgspec

from microfin.redis_cluster import GuardedRedis, RedisUnavailable
from microfin.seal import BELIEVED_SECONDS, Seal, is_fresh
from microfin.settings import ApiSettings


class Session(msgspec.Struct, frozen=True, gc=False):
    """Who is signed in, and until when (seconds since the Unix epoch)."""

    user: str
    expires: int


class _Entry(msgspec.Struct, frozen=True, gc=False):
    """A session as it was read from PostgreSQL at `cached`, in milliseconds since the epoch."""

    user: str
    expires: int
    cached: int


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Entry).decode


class SessionCache:
    """Reads and writes `session:{hash of the id}`."""

    def __init__(self, settings: ApiSettings, redis: GuardedRedis) -> None:
        self._seal = Seal(settings.secret, "cached-session")
        self._redis = redis

    async def get(self, token_hash: bytes) -> Session | None:
        """Return the session, or None where it is not cached, not to be believed, or Redis is away.

        A session that has ended meanwhile is returned too.
        """
        key = _key(token_hash)
        try:
            held = await self._redis.get(key)
        except RedisUnavailable:
            return None
        if held is None:
            return None
        document = self._seal.open(key.encode(), held)
        if document is None:
            return None
        entry = _decode(document)
        return Session(entry.user, entry.expires) if is_fresh(entry.cached, now()) else None

    async def put(self, token_hash: bytes, session: Session, read_at: int) -> None:
        """Cache a session as PostgreSQL had it at `read_at` or later. Never fails."""
        key = _key(token_hash)
        entry = _encode(_Entry(session.user, session.expires, read_at))
        with contextlib.suppress(RedisUnavailable):
            sealed = self._seal.close(key.encode(), entry)
            await self._redis.set(key, sealed, seconds=BELIEVED_SECONDS)

    async def forget(self, token_hash: bytes) -> None:
        """Take a session out of the cache. Never fails."""
        with contextlib.suppress(RedisUnavailable):
            await self._redis.delete(_key(token_hash))


def now() -> int:
    """Return milliseconds since the Unix epoch."""
    return time.time_ns() // 1_000_000


def _key(token_hash: bytes) -> str:
    # By the hash: whoever can list Redis' keys must not be able to sign in with them.
    return f"session:{token_hash.hex()}"
