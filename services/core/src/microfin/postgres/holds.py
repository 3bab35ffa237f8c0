"""Read-only queries of holds: those that are open, and what ended the others."""

from typing import Final

import msgspec

from microfin.ledger.operation import Outcome
from microfin.ledger.records import Hold
from microfin.postgres.archive_reading import Archive, what_is_archived
from microfin.postgres.connections import Connection, Pool
from microfin.postgres.rows import HOLD_COLUMNS, OUTCOME_COLUMNS, hold_of, outcome_of


class HoldPlace(msgspec.Struct, frozen=True):
    """A hold's place among those of its account: `ends` is milliseconds since the Unix epoch."""

    ends: int
    operation: str


_BEFORE_ALL: Final = HoldPlace(0, "0" * 32)

_OPEN: Final = f"""
SELECT {HOLD_COLUMNS} FROM holds WHERE operation_id = $1::uuid
"""  # noqa: S608 - the columns are ours

_OF_ACCOUNT: Final = f"""
SELECT {HOLD_COLUMNS} FROM holds
WHERE account = $1 AND (ends_at, operation_id)
    > ('epoch'::timestamptz + $2::bigint * interval '1 millisecond', $3::uuid)
ORDER BY holds.ends_at, operation_id LIMIT $4
"""  # noqa: S608 - the columns are ours

_END: Final = f"""
SELECT {OUTCOME_COLUMNS} FROM end_of_hold($1::uuid)
"""  # noqa: S608 - the columns are ours


async def open_hold(pool: Pool, operation: str) -> Hold | None:
    """Return the hold that `operation` made, if it is open on this shard."""
    async with pool.acquire() as connection:
        row = await connection.fetch_first(_OPEN, operation)
    return None if row is None else hold_of(row)


async def open_holds(pool: Pool, number: str, after: HoldPlace | None, limit: int) -> list[Hold]:
    """Return at most `limit` open holds of the account `number`, those that end first."""
    place = after or _BEFORE_ALL
    async with pool.acquire() as connection:
        rows = await connection.fetch_at_once(
            _OF_ACCOUNT, number, place.ends, place.operation, limit
        )
    return [hold_of(row) for row in rows]


async def end_of(pool: Pool, operation: str, archive: Archive) -> Outcome | None:
    """Return the outcome that ended the hold which `operation` made, None if none has.

    Raises `ArchiveFault` if it may be archived and that cannot be read.
    """
    async with pool.acquire() as connection:
        found = await _end(connection, operation)
    if found is not None:
        return found
    archived = await what_is_archived(pool)
    if not archived.volumes:
        return None
    async with archive.reading(archived) as connection:
        return await _end(connection, operation)


async def _end(connection: Connection, operation: str) -> Outcome | None:
    row = await connection.fetch_first(_END, operation)
    return None if row is None else outcome_of(row)
