"""The users, on shard 0."""

import struct
from typing import Final

import msgspec

from microfin.database import Pool
from microfin.sql_literals import text
from microfin_api.uuid7 import uuid7


class User(msgspec.Struct, frozen=True):
    """A user as stored. `password_hash` is argon2id's own text."""

    id: str
    name: str
    email: str
    password_hash: str


_SELECT: Final = "SELECT id, name, email, password_hash FROM users WHERE "
_COPY_HEADER_BYTES: Final = 19  # signature, flags, and the size of an extension that there is not


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
        """Return the user whom `condition` fits, whose values are literals of `sql_literals`.

        COPY is the one way to rows that takes a single round trip without a prepared statement.
        """
        copied = bytearray()

        async def take(data: bytes) -> None:
            copied.extend(data)

        async with self._pool.acquire() as connection:
            await connection.copy_from_query(_SELECT + condition, output=take, format="binary")
        row = _first_row(bytes(copied))
        if row is None:
            return None
        user, name, email, password_hash = row
        return User(user.hex(), name.decode(), email.decode(), password_hash.decode())


def _first_row(copied: bytes) -> list[bytes] | None:
    """Return the first row's values out of COPY's binary format; they are never NULL here."""
    position = _COPY_HEADER_BYTES
    (count,) = struct.unpack_from("!h", copied, position)
    if count < 0:
        return None
    position += 2
    values = []
    for _ in range(count):
        (size,) = struct.unpack_from("!i", copied, position)
        values.append(copied[position + 4 : position + 4 + size])
        position += 4 + size
    return values
