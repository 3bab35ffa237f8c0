"""Sessions: ids that cannot be forged, kept in PostgreSQL, answered for by Redis.

A session id is random and carries a keyed tag, so that a forged one costs no look-up. PostgreSQL
(shard 0) holds a hash of it, never the id. Redis holds what PostgreSQL said, for a minute at most:
that is also how long a sign-out whose Redis half failed can be overlooked. Redis gone or empty
makes sessions slower, not invalid.
"""

import contextlib
import secrets
import time
from hashlib import blake2b
from typing import Final

import msgspec
from starlette.requests import Request

from microfin.database import Pool
from microfin.redis_cluster import GuardedRedis, RedisUnavailable
from microfin.settings import ApiSettings
from microfin_api.client_address import TrustedProxies
from microfin_api.problems import Problem
from microfin_api.signing import TAG_BYTES, Signer

COOKIE: Final = "sessionId"
_CACHED_SECONDS: Final = 60
_RANDOM_BYTES: Final = 18  # 144 bits, 24 characters
_RANDOM_LENGTH: Final = _RANDOM_BYTES * 4 // 3
_LENGTH: Final = _RANDOM_LENGTH + TAG_BYTES * 4 // 3
_DAY: Final = 24 * 60 * 60
_INSERT: Final = (
    "INSERT INTO sessions (token_hash, user_id, expires_at)"
    " VALUES ($1, $2, clock_timestamp() + $3 * interval '1 second')"
)


class Session(msgspec.Struct, frozen=True, gc=False):
    """Who is signed in, and until when (seconds since the Unix epoch)."""

    user: str
    expires: int


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Session).decode


class Sessions:
    """Opens, finds and ends sessions."""

    def __init__(self, settings: ApiSettings, pool: Pool, redis: GuardedRedis) -> None:
        self._seconds = settings.session_days * _DAY
        self._cookie_secure = settings.cookie_secure
        self._proxies = TrustedProxies(settings.trusted_proxies)
        self._signer = Signer(settings, "microfin-session")
        self._pool = pool
        self._redis = redis

    def new_id(self) -> str:
        """Return a new session id."""
        random = secrets.token_urlsafe(_RANDOM_BYTES)
        return random + self._signer.tag(random)

    def is_ours(self, session_id: str) -> bool:
        """Tell whether we made this id, by its tag alone."""
        random, tag = session_id[:_RANDOM_LENGTH], session_id[_RANDOM_LENGTH:]
        return (
            len(session_id) == _LENGTH and session_id.isascii() and self._signer.is_tag(tag, random)
        )

    async def open(self, user: str) -> str:
        """Open a session for `user` and return its id."""
        session_id = self.new_id()
        async with self._pool.acquire() as connection, connection.transaction():
            # By parameters: what stands in a statement can stand in PostgreSQL's log.
            await connection.execute(_INSERT, _hash(session_id), user, self._seconds)
        await self._cache(session_id, Session(user, int(time.time()) + self._seconds))
        return session_id

    async def require(self, request: Request) -> Session:
        """Return the request's session. Raises `Problem` where it has none that is valid."""
        session = await self.find(session_id_of(request))
        if session is None:
            raise Problem("not_signed_in", headers={"WWW-Authenticate": "Bearer"})
        return session

    async def find(self, session_id: str) -> Session | None:
        """Return the session of this id, or None."""
        if not self.is_ours(session_id):
            return None
        with contextlib.suppress(RedisUnavailable, msgspec.MsgspecError):
            held = await self._redis.get(_redis_key(session_id))
            if held is not None:
                session = _decode(held)
                return session if session.expires > time.time() else None
        return await self._find_stored(session_id)

    async def _find_stored(self, session_id: str) -> Session | None:
        async with self._pool.acquire() as connection, connection.transaction(readonly=True):
            row = await connection.fetchrow(
                "SELECT user_id, extract(epoch FROM expires_at)::bigint AS expires FROM sessions"
                " WHERE token_hash = $1 AND expires_at > clock_timestamp()",
                _hash(session_id),
            )
        if row is None:
            return None
        session = Session(row["user_id"].hex, row["expires"])
        await self._cache(session_id, session)
        return session

    async def _cache(self, session_id: str, session: Session) -> None:
        with contextlib.suppress(RedisUnavailable):
            await self._redis.set(_redis_key(session_id), _encode(session), seconds=_CACHED_SECONDS)

    async def end(self, session_id: str) -> None:
        """End the session of this id."""
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(
                "DELETE FROM sessions WHERE token_hash = $1", _hash(session_id)
            )
        with contextlib.suppress(RedisUnavailable):
            await self._redis.delete(_redis_key(session_id))

    async def forget_expired(self) -> None:
        """Delete the sessions that have ended by themselves."""
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(
                "DELETE FROM sessions WHERE token_hash IN ("
                "SELECT token_hash FROM sessions WHERE expires_at < clock_timestamp() LIMIT 10000)"
            )

    def cookie(self, session_id: str, request: Request) -> str:
        """Return the Set-Cookie that hands out this session; an empty id takes the cookie away."""
        seconds = self._seconds if session_id else 0
        secure = self._cookie_secure == "always" or (
            self._cookie_secure == "auto" and self._proxies.scheme_of(request) == "https"
        )
        return (
            f"{COOKIE}={session_id}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax"
            f"{'; Secure' if secure else ''}"
        )


def session_id_of(request: Request) -> str:
    """Return the session id that the request came with, as Bearer token or cookie, or ''."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return token.strip()
    return request.cookies.get(COOKIE, "")


def _hash(session_id: str) -> bytes:
    return blake2b(session_id.encode(), digest_size=32).digest()


def _redis_key(session_id: str) -> str:
    # By the hash: whoever can list Redis' keys must not be able to sign in with them.
    return f"session:{_hash(session_id).hex()}"
