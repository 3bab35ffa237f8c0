"""Operations of an account that have no entry: rejections, the opening, holds and releases.

They have an index of their own in each volume, which costs the others nothing
(docs/adr/0053-own-operations.md). A volume may leave for the archive between two looks: then it is
in the archive before it leaves the ledger, and the ledger is read first.
"""

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from microfin.ledger.columns import MOMENT_LATEST, Moment
from microfin.ledger.operation import Kind
from microfin.postgres.archive_reading import Archive, Archived, what_is_archived_of
from microfin.postgres.connections import Connection, Pool
from microfin.postgres.rows import MILLISECONDS


class AttemptPlace(msgspec.Struct, frozen=True, array_like=True):
    """The place of an attempt among those of its account, in the order of decision.

    `time` is milliseconds since the Unix epoch.
    """

    volume: Annotated[int, Meta(ge=-(2**31), lt=2**31)]
    time: Moment
    operation: Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]


class Attempt(msgspec.Struct, frozen=True):
    """An operation that moved nothing."""

    place: AttemptPlace
    kind: Kind


class AttemptPage(msgspec.Struct, frozen=True):
    """Attempts in the order that was asked for. Others may follow `goes_on`, unless it is None.

    Where all that follows is archived and older, it was decided at `follow_until` or before.
    """

    attempts: list[Attempt]
    goes_on: AttemptPlace | None
    follow_until: int | None = None


class AttemptFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which attempts to read: those after `place` in the order that is asked for, of a time.

    `since` is the first moment of the range, `until` the first one after it.
    """

    oldest_first: bool = False
    place: AttemptPlace | None = None
    since: int | None = None
    until: int | None = None


_MOMENT: Final = "'epoch'::timestamptz + ${}::bigint * interval '1 millisecond'"

_ATTEMPTS: Final = f"""
SELECT volume, operation_id, kind, {MILLISECONDS.format(column="at")} AS time
FROM attempts_of($1, $2::uuid, $3, $4, {_MOMENT.format(5)}, $6::uuid,
    coalesce({_MOMENT.format(7)}, '-infinity'), coalesce({_MOMENT.format(8)}, 'infinity'), $9)
LIMIT $9
"""  # noqa: S608 - the columns are ours


async def attempts(
    pool: Pool, number: str, user: str, wanted: AttemptFilter, limit: int, archive: Archive
) -> AttemptPage:
    """Return at most `limit` operations of `user` on the account `number` that have no entry.

    Newest first, a page ends where the archive begins, so that it can be shown without it. Raises
    `ArchiveFault` where archived ones are on the page and cannot be read.
    """
    async with pool.acquire() as connection:
        live = await _read(connection, number, user, wanted, limit)
    archived = await what_is_archived_of(pool, number)
    if not _reaches(wanted, archived) or (not wanted.oldest_first and len(live) == limit):
        return _as_page(live, limit)
    border = max(archived.volumes)
    live = [it for it in live if it.place.volume > border]
    if not wanted.oldest_first and (wanted.place is None or wanted.place.volume > border):
        last_place = AttemptPlace(border, MOMENT_LATEST, "f" * 32)
        return AttemptPage(live, last_place, archived.until)
    async with archive.reading(archived) as connection:
        old = await _read(connection, number, user, wanted, limit)
    old = [it for it in old if it.place.volume <= border]
    return _as_page((old + live)[:limit], limit)


def _reaches(wanted: AttemptFilter, archived: Archived) -> bool:
    """Return whether archived attempts may be among those that are wanted."""
    if not archived.volumes or (wanted.since is not None and wanted.since > archived.until):
        return False
    return not (
        wanted.oldest_first
        and wanted.place is not None
        and wanted.place.volume > max(archived.volumes)
    )


def _as_page(attempts: list[Attempt], limit: int) -> AttemptPage:
    return AttemptPage(attempts, attempts[-1].place if len(attempts) == limit else None)


async def _read(
    connection: Connection, number: str, user: str, wanted: AttemptFilter, limit: int
) -> list[Attempt]:
    place = wanted.place
    rows = await connection.fetch_at_once(
        _ATTEMPTS,
        number,
        user,
        wanted.oldest_first,
        None if place is None else place.volume,
        None if place is None else place.time,
        None if place is None else place.operation,
        wanted.since,
        wanted.until,
        limit,
    )
    return [_attempt(row) for row in rows]


def _attempt(row: Any) -> Attempt:
    place = AttemptPlace(row["volume"], row["time"], row["operation_id"].hex)
    return Attempt(place, row["kind"])
