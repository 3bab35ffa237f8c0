"""An account's statement: its entries, and its balance at a moment. Old entries may be archived.

Each account has a border: its entries up to a number are in the archive, the others in the ledger
(`archived_accounts`). The ledger is read first, and the archive only for what is below the border.
An entry is in the archive before it leaves the ledger, so none is missed; and nothing above the
border is read from the archive, so none comes twice.

A volume leaves the ledger by a change of its tables, which every transaction sees at once, however
old its snapshot is. So what the ledger has is read after a lock on the parent table, which keeps
all volumes there until the transaction ends: in a transaction that takes a snapshot for each
statement (read committed), or in a statement that names the table.
"""

import contextlib
from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec

from microfin.ledger.operation import Kind, Leg
from microfin.postgres.archive_reading import Archive, what_is_archived
from microfin.postgres.connections import Connection, Pool
from microfin.postgres.rows import MILLISECONDS


class StatementLine(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of an account's statement. `counterparty` is empty for deposits and withdrawals."""

    seq: int
    amount: int
    balance_after: int
    operation: str
    leg: Leg
    kind: Kind
    counterparty: str
    time: int
    reference: str = ""


class StatementFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which entries of a statement to read; None means no restriction.

    `before_seq` is the keyset cursor: only entries below it. `since` is the first moment of the
    range, `until` the first moment after it.
    """

    before_seq: int | None = None
    since: int | None = None
    until: int | None = None
    kind: Kind | None = None

    @property
    def by_place_alone(self) -> bool:
        """Whether no time and no kind is asked for."""
        return self.since is None and self.until is None and self.kind is None


class StatementPage(msgspec.Struct, frozen=True):
    """Entries, newest first. Below `next_seq` there may be more; if it is None, there are none.

    A page of one kind may have fewer entries than its limit, although more follow below. `archived`
    says whether a page further below needs the archive. If all below needs it, `follow_until` is
    the time of the newest entry there.
    """

    lines: list[StatementLine]
    next_seq: int | None
    archived: bool = False
    follow_until: int | None = None


class BalanceThen(msgspec.Struct, frozen=True):
    """A balance, and the number of the account's last entry by then; 0 before its first."""

    balance: int
    seq: int


class _Border(msgspec.Struct, frozen=True):
    """The last archived entry of an account: its number, its time and the balance after it."""

    seq: int
    time: int
    balance: int


class _Span(msgspec.Struct, frozen=True):
    """The entries that one database has of an account: those above `floor`, up to `top`."""

    floor: int
    top: int


_BEYOND_EVERY_SEQ: Final = 2**62
_NOTHING_ARCHIVED: Final = _Border(0, 0, 0)

SCANNED_FOR_A_KIND = 5_000
"""The most entries to scan for one page of one kind, which may be rare."""

_BORDER: Final = f"""
LEFT JOIN (
    SELECT seq AS border_seq, balance AS border_balance,
        {MILLISECONDS.format(column="entry_time")} AS border_time
    FROM archived_accounts WHERE number = $1
) AS border ON true
"""  # noqa: S608 - the columns are ours

# A question that names the parent table locks it before the snapshot is taken, and with it all
# volumes: none can leave the ledger. Since it wants no row, no volume is looked into.
_LOCKED: Final = "(SELECT count(*) FROM entries WHERE false) AS locked"

_NEWEST_AND_BORDER: Final = f"""
SELECT border.*, coalesce((SELECT seq FROM accounts WHERE number = $1), 0) AS newest
FROM {_LOCKED} {_BORDER}
"""  # noqa: S608 - the columns are ours

_ENTRIES: Final = f"""
SELECT seq, amount, balance_after, operation_id, leg, kind, counterparty, reference,
    {MILLISECONDS.format(column="at")} AS time
FROM entries_of($1, $2, $3, $4, $5)
ORDER BY seq DESC LIMIT $5
"""  # noqa: S608 - the columns are ours

_ENTRIES_AND_BORDER: Final = f"""
SELECT border.*, line.* FROM {_LOCKED} {_BORDER}
LEFT JOIN LATERAL ({_ENTRIES}) AS line ON true
ORDER BY line.seq DESC
"""  # noqa: S608 - the columns are ours

_LAST_SEQ_BEFORE: Final = """
SELECT last_seq_before($1, 'epoch'::timestamptz + $2::bigint * interval '1 millisecond')
"""


async def entries(
    pool: Pool,
    number: str,
    wanted: StatementFilter,
    limit: int,
    archive: Archive,
) -> StatementPage:
    """Return a page of at most `limit` entries of the account.

    Raises `ArchiveFault` where entries of the page are archived and cannot be read.
    """
    page = await entries_to_border(pool, number, wanted, limit)
    if page.follow_until is None or page.next_seq is None or len(page.lines) == limit:
        return page
    async with archive.reading(await what_is_archived(pool)) as connection:
        left = limit - len(page.lines)
        older = await _page(connection, number, wanted, left, _Span(0, page.next_seq - 1))
    return StatementPage(page.lines + older.lines, older.next_seq, archived=True)


async def entries_to_border(
    pool: Pool, number: str, wanted: StatementFilter, limit: int
) -> StatementPage:
    """Return what the ledger has of a page: it ends where the archive begins."""
    if wanted.by_place_alone:
        live, border = await _newest_first(pool, number, wanted.before_seq, limit)
    else:
        live, border = await _filtered(pool, number, wanted, limit)
    if not _reaches(wanted, border):
        return live
    if live.next_seq is not None:
        return StatementPage(live.lines, live.next_seq, archived=True)
    return StatementPage(live.lines, border.seq + 1, archived=True, follow_until=border.time)


async def balance_at(pool: Pool, number: str, time: int, archive: Archive) -> BalanceThen:
    """Return the account's balance at `time`, after all its entries at that time or before.

    Raises `ArchiveFault` where that is a balance between archived entries, and cannot be read.
    """
    async with _growing_snapshots(pool) as connection:
        newest, border = await _newest_and_border(connection, number)
        if border.time <= time:
            then = await _balance_within(connection, number, time, _Span(border.seq, newest))
            return then or BalanceThen(border.balance, border.seq)
    async with archive.reading(await what_is_archived(pool)) as connection:
        then = await _balance_within(connection, number, time, _Span(0, border.seq))
    return then or BalanceThen(0, 0)


async def last_seq_before(pool: Pool, number: str, time: int | None, archive: Archive) -> int:
    """Return the number of the account's last entry before `time`, 0 if there is none.

    None is after all. Raises `ArchiveFault` where only the archive knows it, and cannot be read.
    """
    async with _growing_snapshots(pool) as connection:
        newest, border = await _newest_and_border(connection, number)
        if time is None:
            return newest
        if not border.seq or border.time < time:
            return await _last_seq_before(connection, number, time, _Span(border.seq, newest))
    async with archive.reading(await what_is_archived(pool)) as connection:
        return await _last_seq_before(connection, number, time, _Span(0, border.seq))


async def lines_between(
    pool: Pool, number: str, above: int, top: int, kind: Kind | None, archive: Archive
) -> list[StatementLine]:
    """Return the entries above `above`, up to `top`, newest first; all of them, or of one kind.

    Raises `ArchiveFault` where some of them are archived and cannot be read.
    """
    async with _growing_snapshots(pool) as connection:
        _, border = await _newest_and_border(connection, number)
        lines = await _between(connection, number, max(above, border.seq), top, kind)
    if above >= border.seq:
        return lines
    async with archive.reading(await what_is_archived(pool)) as connection:
        return lines + await _between(connection, number, above, min(top, border.seq), kind)


async def balance_after(pool: Pool, number: str, seq: int, archive: Archive) -> int:
    """Return the account's balance after its entry `seq`; 0 is before its first.

    Raises `ArchiveFault` where that entry is archived and cannot be read.
    """
    if seq == 0:
        return 0
    [line] = await lines_between(pool, number, seq - 1, seq, None, archive)
    return line.balance_after


async def _between(
    connection: Connection, number: str, above: int, top: int, kind: Kind | None
) -> list[StatementLine]:
    if top <= above:
        return []
    rows = await connection.fetch_at_once(_ENTRIES, number, above, top + 1, kind, top - above)
    return [_statement_line(row) for row in rows]


@contextlib.asynccontextmanager
async def _growing_snapshots(pool: Pool) -> AsyncIterator[Connection]:
    """Give a connection in a transaction whose statements each see what is committed by then."""
    async with (
        pool.acquire() as connection,
        connection.transaction(isolation="read_committed", readonly=True),
    ):
        yield connection


def _reaches(wanted: StatementFilter, border: _Border) -> bool:
    """Return whether archived entries are among those that are wanted."""
    return border.seq > 0 and (wanted.since is None or border.time >= wanted.since)


async def _newest_first(
    pool: Pool, number: str, before_seq: int | None, limit: int
) -> tuple[StatementPage, _Border]:
    """Return what the ledger has of a page without a filter, in one round trip."""
    below = before_seq or _BEYOND_EVERY_SEQ
    async with pool.acquire() as connection:
        rows = await connection.fetch_at_once(_ENTRIES_AND_BORDER, number, 0, below, None, limit)
    border = _border_of(rows[0])
    lines = [_statement_line(row) for row in rows if row["seq"] is not None]
    return _as_page(lines, limit, lowest=border.seq, above=border.seq), border


async def _filtered(
    pool: Pool, number: str, wanted: StatementFilter, limit: int
) -> tuple[StatementPage, _Border]:
    """Return what the ledger has of a page of a period or of a kind."""
    async with _growing_snapshots(pool) as connection:
        newest, border = await _newest_and_border(connection, number)
        span = _Span(border.seq, newest)
        if wanted.since is not None and wanted.since <= border.time:
            wanted = msgspec.structs.replace(wanted, since=None)  # all that the ledger has
        if wanted.until is not None and wanted.until <= border.time:
            return StatementPage([], None), border
        return await _page(connection, number, wanted, limit, span), border


async def _newest_and_border(connection: Connection, number: str) -> tuple[int, _Border]:
    """Return the number of the account's newest entry, and its border."""
    row = await connection.fetch_first(_NEWEST_AND_BORDER, number)
    border = _border_of(row)
    return max(row["newest"], border.seq), border


async def _page(
    connection: Connection, number: str, wanted: StatementFilter, limit: int, span: _Span
) -> StatementPage:
    """Return a page of the entries of one database."""
    above, below = span.floor, min(wanted.before_seq or _BEYOND_EVERY_SEQ, span.top + 1)
    if wanted.since is not None:
        above = await _last_seq_before(connection, number, wanted.since, span)
    if wanted.until is not None:
        below = min(below, await _last_seq_before(connection, number, wanted.until, span) + 1)
    lowest = above
    if wanted.kind is not None:
        lowest = max(above, below - 1 - SCANNED_FOR_A_KIND)
    rows = await connection.fetch_at_once(_ENTRIES, number, lowest, below, wanted.kind, limit)
    return _as_page([_statement_line(row) for row in rows], limit, lowest=lowest, above=above)


def _as_page(lines: list[StatementLine], limit: int, *, lowest: int, above: int) -> StatementPage:
    """Return the page of `lines`, which were looked for above `lowest`, and are wanted `above`."""
    seen_down_to = lines[-1].seq if len(lines) == limit else lowest + 1
    return StatementPage(lines, seen_down_to if seen_down_to > above + 1 else None)


async def _balance_within(
    connection: Connection, number: str, time: int, span: _Span
) -> BalanceThen | None:
    """Return the balance after the last entry at `time` or before, None before the span's first."""
    seq = await _last_seq_before(connection, number, time + 1, span)
    if seq == span.floor:
        return None
    rows = await connection.fetch_at_once(_ENTRIES, number, seq - 1, seq + 1, None, 1)
    return BalanceThen(rows[0]["balance_after"], seq)


async def _last_seq_before(connection: Connection, number: str, time: int, span: _Span) -> int:
    """Return the number of the last entry before `time`, the floor where the span has none."""
    row = await connection.fetch_first(_LAST_SEQ_BEFORE, number, time)
    return max(span.floor, min(span.top, int(row[0])))


def _border_of(row: Any) -> _Border:
    if not row["border_seq"]:
        return _NOTHING_ARCHIVED
    return _Border(row["border_seq"], row["border_time"], row["border_balance"])


def _statement_line(row: Any) -> StatementLine:
    return StatementLine(
        seq=row["seq"],
        amount=row["amount"],
        balance_after=row["balance_after"],
        operation=row["operation_id"].hex,
        leg=row["leg"],
        kind=row["kind"],
        counterparty=row["counterparty"],
        time=row["time"],
        reference=row["reference"] or "",
    )
