"""A period of an account's statement: read from its oldest entry on, and what it adds up to.

An entry's number never changes, and the numbers have no gaps. So a period is first turned into
numbers, and what has these numbers is read then, wherever it is by that time.
"""

from typing import Final

import msgspec

from microfin.ledger.operation import Kind
from microfin.postgres.archive_reading import Archive
from microfin.postgres.connections import Pool
from microfin.postgres.statements import (
    StatementLine,
    balance_after,
    last_seq_before,
    lines_between,
)

TOTALLED_MOST: Final = 10_000
"""The most entries that are added up for one answer."""

_SCANNED_FOR_A_KIND: Final = 1_000
"""Entries to read for one page of one kind from the oldest on: all of them travel."""


class Period(msgspec.Struct, frozen=True):
    """The entries of a period: those above `above`, up to `top`."""

    above: int
    top: int

    @property
    def entries(self) -> int:
        """How many there are."""
        return max(self.top - self.above, 0)


class OldestFirst(msgspec.Struct, frozen=True):
    """Entries, oldest first. Above `next_seq` there are more; if it is None, there are none.

    A page of one kind may have fewer entries than its limit, although more follow.
    """

    lines: list[StatementLine]
    next_seq: int | None


class Totals(msgspec.Struct, frozen=True):
    """What a period adds up to, in minor units: `paid_out` is positive."""

    opening_balance: int
    closing_balance: int
    paid_in: int
    paid_out: int


async def period(
    pool: Pool, number: str, since: int | None, until: int | None, archive: Archive
) -> Period:
    """Return the entries of an account at `since` or later and before `until`, by their numbers.

    None is no restriction. Raises `ArchiveFault` where the archive must be asked and cannot be.
    """
    above = 0 if since is None else await last_seq_before(pool, number, since, archive)
    top = await last_seq_before(pool, number, until, archive)
    return Period(above, max(above, top))


async def oldest_first(
    pool: Pool,
    number: str,
    wanted: Period,
    *,
    after_seq: int,
    kind: Kind | None,
    limit: int,
    archive: Archive,
) -> OldestFirst:
    """Return a page of at most `limit` entries of a period, after the entry `after_seq`.

    Raises `ArchiveFault` where entries of the page are archived and cannot be read.
    """
    above = max(wanted.above, after_seq)
    read_to = min(wanted.top, above + (limit if kind is None else _SCANNED_FOR_A_KIND))
    if read_to <= above:
        return OldestFirst([], None)
    lines = await lines_between(pool, number, above, read_to, kind, archive)
    lines.reverse()
    if len(lines) > limit:
        lines, read_to = lines[:limit], lines[limit - 1].seq
    return OldestFirst(lines, read_to if read_to < wanted.top else None)


async def totals(
    pool: Pool, number: str, wanted: Period, kind: Kind | None, archive: Archive
) -> Totals | None:
    """Return what a period adds up to; the sums are of one `kind`, if it is given.

    None if it has more than `TOTALLED_MOST` entries. Raises as `oldest_first` does.
    """
    if wanted.entries > TOTALLED_MOST:
        return None
    lines = await lines_between(pool, number, wanted.above, wanted.top, kind, archive)
    return Totals(
        await balance_after(pool, number, wanted.above, archive),
        await balance_after(pool, number, wanted.top, archive),
        sum(it.amount for it in lines if it.amount > 0),
        -sum(it.amount for it in lines if it.amount < 0),
    )
