"""The users, on shard 0."""

from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec.structs import replace

from microfin.postgres.connections import Connection, Pool
from microfin_api.uuid7 import uuid7


class User(msgspec.Struct, frozen=True):
    """A user as stored. `password_hash` is argon2id's own text; sessions are of an `epoch`."""

    id: str
    name: str
    email: str
    password_hash: str
    epoch: int = 0


def new_user(name: str, email: str, password_hash: str) -> User:
    """Return a user with a new id, to be added."""
    return User(uuid7().hex, name, email, password_hash)


_SELECT: Final = (
    "SELECT id, name, email, password_hash, session_epoch FROM users WHERE disabled_at IS NULL AND "
)


class Users:
    """Adds and finds users."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def add(self, connection: Connection, user: User, forms: Sequence[str]) -> bool:
        """Add a user in the transaction of `connection`; return whether the address was free.

        `forms` are all forms in which the address may be stored already.
        """
        added = await connection.fetch_first(
            "INSERT INTO users (id, name, email, password_hash)"
            " SELECT $1::uuid, $2::text, $3::text, $4::text"
            " WHERE NOT EXISTS (SELECT FROM users WHERE email = ANY ($5::text[]))"
            " ON CONFLICT (email) DO NOTHING RETURNING id",
            user.id,
            user.name,
            user.email,
            user.password_hash,
            list(forms),
        )
        return added is not None

    async def with_email(self, forms: Sequence[str]) -> User | None:
        """Return the user whose address is stored in the first of these forms that is found.

        None also if that user is disabled.
        """
        if len(forms) == 1:
            return await self._find("email = $1", forms[0])
        # Two users of an earlier release can have what is one address now: each types another form.
        return await self._find(
            "email = ANY ($1::text[]) ORDER BY array_position($1::text[], email) LIMIT 1",
            list(forms),
        )

    async def with_id(self, user: str) -> User | None:
        """Return the user with this id, or None if there is none or they are disabled."""
        return await self._find("id = $1", user)

    async def replace_hash(self, user: User, password_hash: str) -> User:
        """Store another hash of the same password; return the user with it."""
        async with self._pool.acquire() as connection:
            await connection.fetch_at_once(
                "UPDATE users SET password_hash = $2 WHERE id = $1 AND password_hash = $3",
                user.id,
                password_hash,
                user.password_hash,
            )
        return replace(user, password_hash=password_hash)

    async def _find(self, condition: str, value: str | list[str]) -> User | None:
        """Return the user that fits `condition` on `value`.

        The value is a parameter: PostgreSQL logs a statement that is slow or fails, and the address
        would be in it.
        """
        async with self._pool.acquire() as connection:
            row = await connection.fetch_first(_SELECT + condition, value)
        if row is None:
            return None
        return User(
            row["id"].hex, row["name"], row["email"], row["password_hash"], row["session_epoch"]
        )
