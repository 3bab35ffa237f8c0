"""The users, on shard 0."""

from typing import Final

import msgspec

from microfin.database import Connection, Pool
from microfin_api.uuid7 import uuid7


class User(msgspec.Struct, frozen=True):
    """A user as stored. `password_hash` is argon2id's own text; sessions are of an `epoch`."""

    id: str
    name: str
    email: str
    password_hash: str
    epoch: int = 0


def new_user(name: str, email: str, password_hash: str) -> User:
    """Return a user with an id of their own, to be added."""
    return User(uuid7().hex, name, email, password_hash)


_SELECT: Final = (
    "SELECT id, name, email, password_hash, session_epoch FROM users WHERE disabled_at IS NULL AND "
)


class Users:
    """Adds and finds users."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def add(self, connection: Connection, user: User) -> bool:
        """Add a user in the transaction of `connection`; tell whether the address was free."""
        added = await connection.fetchval(
            "INSERT INTO users (id, name, email, password_hash) VALUES ($1, $2, $3, $4)"
            " ON CONFLICT (email) DO NOTHING RETURNING id",
            user.id,
            user.name,
            user.email,
            user.password_hash,
        )
        return added is not None

    async def with_email(self, email: str) -> User | None:
        """Return the user with this address (in lower case), or None; a disabled one is none."""
        return await self._find("email = $1", email)

    async def with_id(self, user: str) -> User | None:
        """Return the user with this id, or None; a disabled one is none."""
        return await self._find("id = $1", user)

    async def replace_hash(self, user: User, password_hash: str) -> None:
        """Store another hash of the same password."""
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(
                "UPDATE users SET password_hash = $2 WHERE id = $1 AND password_hash = $3",
                user.id,
                password_hash,
                user.password_hash,
            )

    async def _find(self, condition: str, value: str) -> User | None:
        """Return the user whom `condition` on `value` fits.

        The value is a parameter: a statement with an address in it would stand in PostgreSQL's log
        where it is slow or fails.
        """
        async with self._pool.acquire() as connection, connection.transaction(readonly=True):
            row = await connection.fetchrow(_SELECT + condition, value)
        if row is None:
            return None
        return User(
            row["id"].hex, row["name"], row["email"], row["password_hash"], row["session_epoch"]
        )
