"""The users, on shard 0."""

from typing import Final

import msgspec

from microfin.database import Connection, Pool
from microfin.sql_literals import text
from microfin_api.copied_rows import copy_first_row
from microfin_api.uuid7 import uuid7


class User(msgspec.Struct, frozen=True):
    """A user as stored. `password_hash` is argon2id's own text."""

    id: str
    name: str
    email: str
    password_hash: str


def new_user(name: str, email: str, password_hash: str) -> User:
    """Return a user with an id of their own, to be added."""
    return User(uuid7().hex, name, email, password_hash)


_SELECT: Final = "SELECT id, name, email, password_hash FROM users WHERE "


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
        """Return the user with this address (in lower case), or None."""
        return await self._find(f"email = {text(email)}")

    async def with_id(self, user: str) -> User | None:
        """Return the user with this id, or None."""
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
        user, name, email, password_hash = row
        return User(user.hex(), name.decode(), email.decode(), password_hash.decode())
