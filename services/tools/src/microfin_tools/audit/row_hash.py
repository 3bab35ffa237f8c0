"""The hash of a row of a volume, by which ledger and archive know that they have the same rows."""

from collections.abc import Sequence
from typing import Final

from microfin.postgres.connections import Connection

_COLUMNS: Final = """
SELECT attname FROM pg_attribute
WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attname
"""

_CAME_LATER: Final = (
    "reference",
    "metadata",
    "held",
    "hold",
    "held_change",
    "hold_left",
    "ends_at",
)
"""Columns that are younger than the first archives, in the order in which they came."""


async def columns_of(connection: Connection, table: str) -> list[str]:
    """Return the names of a table's columns, in alphabetical order."""
    return [row["attname"] for row in await connection.fetch(_COLUMNS, table)]


def hash_of(columns: Sequence[str]) -> str:
    """Return SQL for a row's hash, a `bigint`.

    It is of PostgreSQL's binary form, which depends neither on the release of the server nor on the
    session's settings. A column that came later adds nothing where it is null: so a volume that was
    archived before has the hashes of then.
    """
    first = ", ".join(it for it in columns if it not in _CAME_LATER)
    later = (
        f"CASE WHEN {it} IS NULL THEN '' ELSE record_send(ROW('{it}'::text, {it})) END"
        for it in _CAME_LATER
        if it in columns
    )
    row = " || ".join((f"record_send(ROW({first}))", *later))
    return f"('x' || left(md5({row}), 16))::bit(64)::bigint"
