"""Sessions: ids that cannot be forged, kept in PostgreSQL, answered for by Redis.

A session id is random and carries a keyed tag, so that a forged one costs no look-up. PostgreSQL
(shard 0) holds a hash of it, never the id. Redis holds what PostgreSQL said, for a minute at most
(`session_cache`). A session that ends is buried there, before and after PostgreSQL forgets it; only
where both fail can it be honoured for the rest of its minute. Redis gone or empty makes sessions
slower, not invalid.
"""

import secrets
from hashlib import blake2b
from typing import Final

from starlette.requests import Request

from microfin.database import Connection, Pool
from microfin.ended_sessions import bury
from microfin.redis_cluster import GuardedRedis
from microfin.settings import ApiSettings
from microfin_api.client_address import TrustedProxies
from microfin_api.credential import COOKIE, Credential, bearer_of, cookies_of
from microfin_api.problems import Problem
from microfin_api.session_cache import Session, SessionCache, now
from microfin_api.signing import TAG_BYTES, Signer

_MOST_SESSIONS: Final = 4
"""Sessions that are looked up for one request: more cookies of our own making are no accident."""
_RANDOM_BYTES: Final = 18  # 144 bits, 24 characters
_RANDOM_LENGTH: Final = _RANDOM_BYTES * 4 // 3
_LENGTH: Final = _RANDOM_LENGTH + TAG_BYTES * 4 // 3
_DAY: Final = 24 * 60 * 60
_INSERT: Final = (
    "INSERT INTO sessions (token_hash, user_id, expires_at)"
    " VALUES ($1, $2, clock_timestamp() + $3 * interval '1 second')"
)


class Sessions:
    """Opens, finds and ends sessions."""

    def __init__(self, settings: ApiSettings, pool: Pool, redis: GuardedRedis) -> None:
        self._seconds = settings.session_days * _DAY
        self._cookie_secure = settings.cookie_secure
        self._proxies = TrustedProxies(settings.trusted_proxies)
        self._signer = Signer(settings, "microfin-session")
        self._pool = pool
        self._redis = redis
        self._cache = SessionCache(settings, redis)

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
        read_at = now()
        async with self._pool.acquire() as connection, connection.transaction():
            session_id = await self.open_within(connection, user)
        session = Session(user, read_at // 1000 + self._seconds)
        await self._cache.put(_hash(session_id), session, read_at, b"")
        return session_id

    async def open_within(self, connection: Connection, user: str) -> str:
        """Open a session in the transaction of `connection`; return its id, for the answer.

        It is not cached: it may yet come to nothing.
        """
        session_id = self.new_id()
        # By parameters: what stands in a statement can stand in PostgreSQL's log.
        await connection.execute(_INSERT, _hash(session_id), user, self._seconds)
        return session_id

    async def require(self, request: Request) -> Session:
        """Return the request's session. Raises `Problem` where it has none that is valid."""
        found: Session | None = None
        for session_id in self.credential_of(request).session_ids:
            session = await self.find(session_id)
            if found is not None and session is not None and found.user != session.user:
                raise _not_signed_in("Cookies of two people came with the request: sign out.")
            found = found or session
        if found is None:
            raise _not_signed_in()
        return found

    def credential_of(self, request: Request) -> Credential:
        """Return the session ids that the request is asked by.

        A Bearer token of our making is used whether or not its session is valid; beside any other,
        the cookies count, with the rules for cookies.
        """
        bearer = bearer_of(request)
        if self.is_ours(bearer):
            return Credential((bearer,), by_bearer=True)
        ours = [cookie for cookie in cookies_of(request) if self.is_ours(cookie)]
        return Credential(tuple(ours[:_MOST_SESSIONS]), by_bearer=False)

    def require_credential(self, request: Request) -> Credential:
        """Return the credential. Raises `Problem` where none of our making came."""
        credential = self.credential_of(request)
        if not credential.session_ids:
            raise _not_signed_in()
        return credential

    async def find(self, session_id: str) -> Session | None:
        """Return the session of this id, or None."""
        if not self.is_ours(session_id):
            return None
        token_hash = _hash(session_id)
        found = await self._cache.get(token_hash)
        return found.session or await self._find_stored(token_hash, found.held)

    async def _find_stored(self, token_hash: bytes, held: bytes) -> Session | None:
        read_at = now()
        async with self._pool.acquire() as connection, connection.transaction(readonly=True):
            row = await connection.fetchrow(
                "SELECT user_id, extract(epoch FROM expires_at)::bigint AS expires FROM sessions"
                " WHERE token_hash = $1 AND expires_at > clock_timestamp()",
                token_hash,
            )
        if row is None:
            return None
        session = Session(row["user_id"].hex, row["expires"])
        await self._cache.put(token_hash, session, read_at, held)
        return session

    async def end(self, credential: Credential) -> None:
        """End the sessions of these ids."""
        token_hashes = [_hash(session_id) for session_id in credential.session_ids]
        await bury(self._redis, token_hashes)
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(
                "DELETE FROM sessions WHERE token_hash = ANY($1::bytea[])", token_hashes
            )
        await bury(self._redis, token_hashes)

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


def _not_signed_in(detail: str = "") -> Problem:
    return Problem("not_signed_in", detail, headers={"WWW-Authenticate": "Bearer"})


def _hash(session_id: str) -> bytes:
    return blake2b(session_id.encode(), digest_size=32).digest()
