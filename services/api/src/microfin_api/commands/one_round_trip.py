"""Rows for one message.

COPY is the one way to rows that takes a single round trip without a prepared statement, which a
transaction pooler may not know. Under load each round trip waits for a turn of the event loop.
"""

import struct
from typing import Final

from microfin.postgres.connections import Connection

_HEADER_BYTES: Final = 19  # signature, flags, and the size of an extension that there is not


async def fetch_first_row(connection: Connection, statement: str) -> list[bytes] | None:
    """Return the first row that `statement` returns, None where there is none.

    `statement` is one SELECT, or an INSERT with RETURNING, whose values are literals (see
    `microfin.postgres.literals`), and none of them is of a person. The row's values are in
    PostgreSQL's binary formats, and none is NULL.
    """
    copied = bytearray()

    async def take(data: bytes) -> None:
        copied.extend(data)

    await connection.copy_from_query(statement, output=take, format="binary")
    return _first_row(bytes(copied))


def _first_row(copied: bytes) -> list[bytes] | None:
    """Return the first row out of COPY's binary format (PostgreSQL's manual, COPY)."""
    position = _HEADER_BYTES
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
