"""Sessions: ids that cannot be forged, stored in PostgreSQL and cached in Redis.

A session id is random and carries a keyed tag, so that a forged one costs no look-up. PostgreSQL
(shard 0) holds a hash of it, never the id. Redis holds what PostgreSQL had, for a minute at most
(`session_cache`). A session that ends is marked there, before and after PostgreSQL deletes it; only
if both fail can it be accepted for the rest of its minute. This process remembers what it has read
for some seconds (`session_memory`), while it hears which sessions end (`ended_sessions`). Without
Redis, or with an empty one, sessions are slower, not invalid.
"""

import secrets
from hashlib import blake2b
from typing import Final

import msgspec
from starlette.requests import Request

from microfin.people.access import CHANGE_PASSWORD, effective_within, end_all_sessions
from microfin.postgres.connections import Connection, Pool
from microfin.process.settings import ApiSettings
from microfin.redis.ended_sessions import TOMBSTONE, mark_ended
from microfin.redis.guarded import GuardedRedis
from microfin_api import metrics
from microfin_api.http.client_address import TrustedProxies
from microfin_api.http.problems import Problem
from microfin_api.people.credential import COOKIE, Credential, bearer_of, cookies_of
from microfin_api.people.ended_sessions import EndedSessions
from microfin_api.people.session_cache import Found, Session, SessionCache, now, seconds_left
from microfin_api.people.session_memory import Reading, SessionMemory
from microfin_api.people.session_store import SessionStore, StoredSession
from microfin_api.people.unawaited import Unawaited
from microfin_api.signing import TAG_BYTES, Signer

_MOST_SESSIONS: Final = 4
"""Sessions that are looked up for one request: nobody has more cookies of ours by accident."""
_RANDOM_BYTES: Final = 18  # 144 bits, 24 characters
_RANDOM_LENGTH: Final = _RANDOM_BYTES * 4 // 3
_LENGTH: Final = _RANDOM_LENGTH + TAG_BYTES * 4 // 3
_FOUND_IN_MEMORY: Final = metrics.SESSIONS_FOUND.labels("memory")
_FOUND_IN_REDIS: Final = metrics.SESSIONS_FOUND.labels("redis")
_FOUND_IN_POSTGRES: Final = metrics.SESSIONS_FOUND.labels("postgres")


class Changed(msgspec.Struct, frozen=True):
    """The session after a change of password, and for how many seconds one of the ended sessions
    may still be accepted."""

    session_id: str
    effective_within: int


class Sessions:
    """Opens, finds and ends sessions."""

    def __init__(self, settings: ApiSettings, pool: Pool, redis: GuardedRedis) -> None:
        self._cookie_secure = settings.cookie_secure
        self._proxies = TrustedProxies(settings.trusted_proxies)
        self._signer = Signer(settings, "microfin-session")
        self._pool = pool
        self._redis = redis
        self._store = SessionStore(settings, pool)
        self._cache = SessionCache(settings, redis)
        self._caching = Unawaited()
        self._memory = SessionMemory()
        self._ended = EndedSessions(settings, redis, self._memory)

    def start(self) -> None:
        """Start to hear which sessions end, while sessions are used."""
        self._ended.start()

    async def stop(self) -> None:
        """Stop hearing it."""
        await self._ended.stop()

    def new_id(self) -> str:
        """Return a new session id."""
        random = secrets.token_urlsafe(_RANDOM_BYTES)
        return random + self._signer.tag(random)

    def is_ours(self, session_id: str) -> bool:
        """Return whether we made this id, by its tag alone."""
        random, tag = session_id[:_RANDOM_LENGTH], session_id[_RANDOM_LENGTH:]
        return (
            len(session_id) == _LENGTH and session_id.isascii() and self._signer.is_tag(tag, random)
        )

    async def open(self, user: str, epoch: int) -> str | None:
        """Open a session for a user who was read at `epoch`, and return its id.

        None if all of the user's sessions have been ended since, or the user is disabled. The
        user's oldest session ends if there are too many.
        """
        session_id, read_at = self.new_id(), now()
        token_hash, reading = _hash(session_id), self._memory.begin()
        ended = await self._store.open(token_hash, user, epoch)
        if ended is None:
            return None
        session = Session(user, read_at // 1000 + self._store.lifetime.at_first)
        # The row was written since `reading`, so it is known as well as one that was read.
        self._memory.keep(token_hash, session, seconds_left(session, read_at), reading)
        # Nobody waits for it. A request that comes before it finds the session in PostgreSQL.
        self._caching.begin(self._cache.put(token_hash, session, read_at, b""))
        if ended:
            await mark_ended(self._redis, ended)
            await self._ended.tell(ended)
        return session_id

    async def open_within(self, connection: Connection, user: str) -> str:
        """Open the first session of a new user in the transaction of `connection`; return its id.

        It is not cached: it may yet come to nothing.
        """
        session_id = self.new_id()
        await self._store.open_on(connection, _hash(session_id), user, 0)
        return session_id

    async def require(self, request: Request) -> Session:
        """Return the request's session. Raises `Problem` if it has no valid one."""
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
        """Return the session ids that the request sends.

        A Bearer token that we made is used whether or not its session is valid. With any other, the
        cookies count, with the rules for cookies.
        """
        bearer = bearer_of(request)
        if self.is_ours(bearer):
            return Credential((bearer,), by_bearer=True)
        ours = [cookie for cookie in cookies_of(request) if self.is_ours(cookie)]
        return Credential(tuple(ours[:_MOST_SESSIONS]), by_bearer=False)

    def require_credential(self, request: Request) -> Credential:
        """Return the credential. Raises `Problem` if the request has none that we made."""
        credential = self.credential_of(request)
        if not credential.session_ids:
            raise _not_signed_in()
        return credential

    async def find(self, session_id: str) -> Session | None:
        """Return the session of this id, or None."""
        if not self.is_ours(session_id):
            return None
        token_hash = _hash(session_id)
        self._ended.use()
        remembered = self._memory.get(token_hash)
        if remembered is not None:
            _FOUND_IN_MEMORY.inc()
            return remembered
        reading = self._memory.begin()
        found = await self._cache.get(token_hash)
        if found.session is None:
            return await self._find_stored(token_hash, found, reading)
        _FOUND_IN_REDIS.inc()
        left = seconds_left(found.session, found.cached)
        self._memory.keep(token_hash, found.session, left, reading)
        return found.session

    async def _find_stored(
        self, token_hash: bytes, found: Found, reading: Reading
    ) -> Session | None:
        read_at = now()
        stored = await self._store.find(token_hash)
        if stored is None:
            return None
        _FOUND_IN_POSTGRES.inc()
        session = Session(stored.user, stored.expires)
        await self._cache.put(token_hash, session, read_at, found.held)
        if found.asked and found.held != TOMBSTONE:  # else it may be about to end
            self._memory.keep(token_hash, session, seconds_left(session, read_at), reading)
        return session

    async def end(self, credential: Credential) -> int:
        """End the sessions of these ids. Returns for how many seconds one of them may still be
        accepted."""
        return await self.end_hashes([_hash(it) for it in credential.session_ids])

    async def end_hashes(self, token_hashes: list[bytes]) -> int:
        """End the sessions of these hashes; see `end`."""
        early = await mark_ended(self._redis, token_hashes)
        await self._store.delete(token_hashes)
        marked = await mark_ended(self._redis, token_hashes) or early
        return await effective_within(token_hashes, self._ended.say, marked=marked)

    async def end_all(self, user: str) -> int:
        """End all sessions of a user, sign-ins of this moment included; see `end`."""
        ended = await end_all_sessions(self._pool, self._redis, self._ended.say, user)
        return 0 if ended is None else ended.effective_within

    async def change_password(self, user: str, epoch: int, password_hash: str) -> Changed | None:
        """Store another hash, end all sessions of the user and open a new one, all in one.

        None if the user is not at `epoch` any more: then nothing is changed.
        """
        session_id = self.new_id()

        async def open_another(connection: Connection, new_epoch: int) -> None:
            await self._store.open_on(connection, _hash(session_id), user, new_epoch)

        ended = await end_all_sessions(
            self._pool,
            self._redis,
            self._ended.say,
            user,
            CHANGE_PASSWORD,
            (password_hash, epoch),
            open_another,
        )
        return None if ended is None else Changed(session_id, ended.effective_within)

    async def stored(self, user: str) -> list[StoredSession]:
        """Return the user's valid sessions, the newest first, at most a thousand."""
        return await self._store.of_user(user)

    def hashes_of(self, request: Request) -> frozenset[bytes]:
        """Return the hashes of the session ids that the request sends."""
        return frozenset(map(_hash, self.credential_of(request).session_ids))

    async def forget_expired(self) -> int:
        """Delete all expired sessions; return their number."""
        return await self._store.forget_expired()

    def cookie(self, session_id: str, request: Request) -> str:
        """Return the Set-Cookie for this session; an empty id deletes the cookie."""
        seconds = self._store.lifetime.absolute if session_id else 0
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
