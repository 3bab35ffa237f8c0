"""The sessions in PostgreSQL, on shard 0: who is signed in, from when, until when.

A session is valid while its row exists, is of its user's epoch, the user is not disabled, and
neither limit is reached: the absolute one from its beginning, the idle one from its last use. The
last use is noted only every few minutes, so that most reads write nothing.
"""

from hashlib import blake2b
from typing import Final

import msgspec
import structlog

from microfin.postgres.connections import DATABASE_ERRORS, Connection, Pool
from microfin.postgres.rows import MILLISECONDS
from microfin.process.settings import ApiSettings

logger = structlog.get_logger(__name__)

_MINUTE: Final = 60
_DAY: Final = 24 * 60 * _MINUTE
_LISTED: Final = 1_000
_EXPIRED_AT_ONCE: Final = 1_000

_OPEN: Final = "SELECT open_session($1, $2, $3, $4, $5)"
_VALID: Final = """
FROM sessions JOIN users ON users.id = sessions.user_id
WHERE sessions.epoch = users.session_epoch AND users.disabled_at IS NULL
    AND sessions.expires_at > clock_timestamp()
    AND sessions.created_at > clock_timestamp() - $2 * interval '1 second'
    AND sessions.last_used_at > clock_timestamp() - $3 * interval '1 second'
"""
_FIND: Final = f"""
SELECT user_id,
    extract(epoch FROM least(expires_at, sessions.created_at + $2 * interval '1 second'))::bigint
        AS expires,
    last_used_at < clock_timestamp() - $4 * interval '1 second' AS unnoted
{_VALID} AND token_hash = $1
"""  # noqa: S608 - no value is in it
_LIST: Final = f"""
SELECT token_hash, {MILLISECONDS.format(column="sessions.created_at")} AS created_at,
    {MILLISECONDS.format(column="last_used_at")} AS last_used_at,
    {MILLISECONDS.format(column="expires_at")} AS expires_at
{_VALID} AND user_id = $1 ORDER BY sessions.created_at DESC, token_hash LIMIT {_LISTED}
"""
_NOTE_USE: Final = """
UPDATE sessions SET last_used_at = clock_timestamp(),
    expires_at = least(created_at + $2 * interval '1 second',
        clock_timestamp() + $3 * interval '1 second')
WHERE token_hash = $1
"""
_FORGET: Final = f"""
WITH forgotten AS (
    DELETE FROM sessions WHERE token_hash IN (
        SELECT token_hash FROM sessions WHERE expires_at < clock_timestamp()
        ORDER BY expires_at LIMIT {_EXPIRED_AT_ONCE} FOR UPDATE SKIP LOCKED
    ) RETURNING 1
) SELECT count(*) FROM forgotten
"""  # noqa: S608 - no value is in it


class FoundSession(msgspec.Struct, frozen=True):
    """A valid session: whose, until when (seconds since the Unix epoch)."""

    user: str
    expires: int


class StoredSession(msgspec.Struct, frozen=True):
    """A valid session as it is listed; times in milliseconds since the Unix epoch."""

    token_hash: bytes
    created_at: int
    last_used_at: int
    expires_at: int

    @property
    def public_id(self) -> str:
        """The id that its user sees: neither the session's id nor its key in Redis."""
        return blake2b(self.token_hash, person=b"public-session", digest_size=16).hexdigest()


class Lifetime:
    """How long sessions last by the settings, in seconds."""

    def __init__(self, settings: ApiSettings) -> None:
        self.absolute = settings.session_minutes * _MINUTE or settings.session_days * _DAY
        idle = settings.session_idle_minutes * _MINUTE
        # So often that it matters little compared with the limit. A minute more for the cache.
        self.noted_after = min(max(idle // 60, _MINUTE), 15 * _MINUTE) if idle else 15 * _MINUTE
        self.idle = idle + self.noted_after + _MINUTE if idle else self.absolute
        self.at_first = min(self.absolute, self.idle)


class SessionStore:
    """Reads and writes the table `sessions`."""

    def __init__(self, settings: ApiSettings, pool: Pool) -> None:
        self.lifetime = Lifetime(settings)
        self._most = settings.sessions_per_user
        self._pool = pool

    async def open(self, token_hash: bytes, user: str, epoch: int) -> list[bytes] | None:
        """Store a session of a user at `epoch`; return the hashes of those that ended for it.

        None if the user has another epoch by now, or is disabled.
        """
        async with self._pool.acquire() as connection:
            return await self.open_on(connection, token_hash, user, epoch)

    async def open_on(
        self, connection: Connection, token_hash: bytes, user: str, epoch: int
    ) -> list[bytes] | None:
        """Do what `open` does, in the transaction of `connection` if one has begun."""
        # By parameters: PostgreSQL may log the text of a statement.
        [row] = await connection.fetch_at_once(
            _OPEN, user, epoch, token_hash, self.lifetime.at_first, self._most
        )
        ended: list[bytes] | None = row[0]
        return ended

    async def find(self, token_hash: bytes) -> FoundSession | None:
        """Return the session if it is valid, and note that it is used."""
        life = self.lifetime
        async with self._pool.acquire() as connection:
            row = await connection.fetch_first(
                _FIND, token_hash, life.absolute, life.idle, life.noted_after
            )
        if row is None:
            return None
        if row["unnoted"]:
            await self._note_use(token_hash)
        return FoundSession(row["user_id"].hex, row["expires"])

    async def _note_use(self, token_hash: bytes) -> None:
        """Note the use of a session. If the note is lost, only the idle limit is affected."""
        life = self.lifetime
        try:
            async with self._pool.acquire() as connection, connection.transaction():
                await connection.execute("SET LOCAL synchronous_commit = off")
                await connection.execute(_NOTE_USE, token_hash, life.absolute, life.idle)
        except DATABASE_ERRORS as error:
            logger.warning("could not note the use of a session", error=repr(error))

    async def of_user(self, user: str) -> list[StoredSession]:
        """Return the user's valid sessions, the newest first."""
        life = self.lifetime
        async with self._pool.acquire() as connection:
            rows = await connection.fetch_at_once(_LIST, user, life.absolute, life.idle)
        return [StoredSession(**dict(row)) for row in rows]

    async def delete(self, token_hashes: list[bytes]) -> None:
        """Delete sessions."""
        async with self._pool.acquire() as connection:
            await connection.fetch_at_once(
                "DELETE FROM sessions WHERE token_hash = ANY($1::bytea[])", token_hashes
            )

    async def forget_expired(self) -> int:
        """Delete all expired sessions; return their number."""
        total: int = 0
        while True:
            async with self._pool.acquire() as connection:
                [row] = await connection.fetch_at_once(_FORGET)
            forgotten = int(row[0])
            total += forgotten
            if forgotten < _EXPIRED_AT_ONCE:
                return total
