"""The users, on shard 0."""

from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec.structs import replace

from microfin.database import Connection, Pool
from microfin.sql_literals import text, texts
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

    async def add(self, connection: Connection, user: User, forms: Sequence[str]) -> bool:
        """Add a user in the transaction of `connection`; tell whether the address was free.

        `forms` are all that the address may be stored in already.
        """
        added = await connection.fetchval(
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
        """Return the user whose address is stored in one of these forms, the first that is."""
        if len(forms) == 1:
            return await self._find(f"email = {text(forms[0])}")
        # Two people of an earlier release can have what is one address now: each by what they type.
        array = f"{texts(forms)}::text[]"
        return await self._find(
            f"email = ANY ({array}) ORDER BY array_position({array}, email) LIMIT 1"
        )

    async def with_id(self, user: str) -> User | None:
        """Return the user with this id, or None."""
        return await self._find(f"id = {text(user)}")

    async def replace_hash(self, user: User, password_hash: str) -> User:
        """Store another hash of the same password; return the user with it."""
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(
                "UPDATE users SET password_hash = $2 WHERE id = $1 AND password_hash = $3",
                user.id,
                password_hash,
                user.password_hash,
            )
        return replace(user, password_hash=password_hash)

    async def _find(self, condition: str) -> User | None:
        """Return the user whom `condition` fits, whose values are literals of `sql_literals`."""
        async with self._pool.acquire() as connection:
            row = await copy_first_row(connection, _SELECT + condition)
        if row is None:
            return None
        user, name, email, password_hash = row
        return User(user.hex(), name.decode(), email.decode(), password_hash.decode())
