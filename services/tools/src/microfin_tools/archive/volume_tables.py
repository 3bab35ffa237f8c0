"""The tables of one volume: their rows from database to database, and what identifies them."""

import asyncio
from collections.abc import AsyncIterator
from typing import Final

import msgspec

from microfin.postgres.connections import Connection
from microfin_tools.audit.impossible import first
from microfin_tools.audit.row_hash import columns_of, hash_of

TABLES: Final = ("outcomes", "entries")

_AHEAD: Final = 8
"""Pieces of a table that are in memory at most, of some 64 KiB each."""


class Contents(msgspec.Struct, frozen=True):
    """How many rows a volume's tables have, and the sums of a hash of each row."""

    outcomes: int
    entries: int
    outcomes_digest: int
    entries_digest: int


def home(volume: int) -> str:
    """Return the schema of a volume."""
    return "volume_" + str(volume).replace("-", "m")


async def contents(connection: Connection, volume: int) -> Contents:
    """Return what identifies the rows of a volume, whatever their order."""
    found = []
    for table in TABLES:
        row = hash_of(await columns_of(connection, table))
        found.append(
            await connection.fetchrow(
                f"SELECT count(*) AS rows, coalesce(sum({row}), 0) AS digest"  # noqa: S608 - all names are ours
                f" FROM {home(volume)}.{table}"
            )
        )
    outcomes, entries = found
    return Contents(
        outcomes["rows"], entries["rows"], int(outcomes["digest"]), int(entries["digest"])
    )


async def copy(source: Connection, target: Connection, volume: int) -> None:
    """Copy the rows of a volume into its empty tables in `target`, in constant memory."""
    for table in TABLES:
        await _copy_table(source, target, home(volume), table)


async def _copy_table(source: Connection, target: Connection, schema: str, table: str) -> None:
    columns = await columns_of(source, table)
    pieces: asyncio.Queue[bytes] = asyncio.Queue(_AHEAD)

    async def read() -> None:
        await source.copy_from_table(
            table, schema_name=schema, columns=columns, format="binary", output=pieces.put
        )
        await pieces.put(b"")

    async def arriving() -> AsyncIterator[bytes]:
        while piece := await pieces.get():
            yield piece

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(read())
            await target.copy_to_table(
                table, schema_name=schema, columns=columns, format="binary", source=arriving()
            )
    except BaseExceptionGroup as failures:
        raise first(failures) from failures
