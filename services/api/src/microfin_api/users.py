"""The users, on shard 0."""

from typing import Final

import msgspec

from microfin.database import Pool
from microfin.sql_literals import text
from microfin_api.copied_rows import copy_first_row
from microfin_api.uuid7 import uuid7


class User(msgspec.Struct, frozen=True):
    """A user as stored. `password_hash` is argon2id's own text; sessions are of an `epoch`."""

    id: str
    name: str
    email: str
    password_hash: str
    epoch: int = 0


_SELECT: Final = (
    "SELECT id, name, email, password_hash, session_epoch FROM users WHERE disabled_at IS NULL AND "
)


class Users:
    """Adds and finds users."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def add(self, name: str, email: str, password_hash: str) -> User | None:
        """Add a user, or return None where the e-mail address is taken."""
        user = User(uuid7().hex, name, email, password_hash)
        async with self._pool.acquire() as connection, connection.transaction():
            added = await connection.fetchval(
                "INSERT INTO users (id, name, email, password_hash) VALUES ($1, $2, $3, $4)"
                " ON CONFLICT (email) DO NOTHING RETURNING id",
                user.id,
                name,
                email,
                password_hash,
            )
        return None if added is None else user

    async def with_email(self, email: str) -> User | None:
        """Return the user with this address (in lower case), or None; a disabled one is none."""
        return await self._find(f"email = {text(email)}")

    async def with_id(self, user: str) -> User | None:
        """Return the user with this id, or None; a disabled one is none."""
        return await self._find(f"id = {text(user)}")

    async def replace_hash(self, user: User, password_hash: str) -> None:
        """Store another hash of the same password."""
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(
                "UPDATE users SET password_hash = $2 WHERE id = $1 AND password_hash = $3",
                user.id,
                password_hash,
                user.password_hash,
            )

    async def _find(self, condition: str) -> User | None:
        """Return the user whom `condition` fits, whose values are literals of `sql_literals`."""
        async with self._pool.acquire() as connection:
            row = await copy_first_row(connection, _SELECT + condition)
        if row is None:
            return None
        user, name, email, password_hash, epoch = row
        return User(
            user.hex(),
            name.decode(),
            email.decode(),
            password_hash.decode(),
            int.from_bytes(epoch, signed=True),
        )
