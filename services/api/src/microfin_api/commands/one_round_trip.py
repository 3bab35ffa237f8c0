"""A row by COPY, for statements whose values are literals: one round trip.

It needs no prepared statement, which a transaction pooler may not know. Under load each round trip
waits for a turn of the event loop. `microfin.postgres.one_round_trip` is for parameters.
"""

import struct
from typing import Final

from microfin.postgres.connections import Connection

_HEADER_BYTES: Final = 19  # signature, flags, and the size of the extension, which is empty


async def fetch_first_row(connection: Connection, statement: str) -> list[bytes] | None:
    """Return the first row that `statement` returns, None if it returns none.

    `statement` is one SELECT, or an INSERT with RETURNING. Its values are literals (see
    `microfin.postgres.literals`), and none is personal data. The row's values are returned in
    PostgreSQL's binary formats; none may be NULL.
    """
    copied = bytearray()

    async def append(data: bytes) -> None:
        copied.extend(data)

    await connection.copy_from_query(statement, output=append, format="binary")
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
