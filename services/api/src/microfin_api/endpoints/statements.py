"""Statements: the entries of an account, and its balance at a time."""

import csv
import io
import re
import time
from collections.abc import AsyncIterator
from decimal import Decimal

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from microfin.ledger.money import to_decimal_text
from microfin.postgres import statement_periods, statements
from microfin.postgres.archive_reading import what_is_archived
from microfin.postgres.statement_periods import TOTALLED_MOST, Period, Totals
from microfin.postgres.statements import StatementFilter, StatementLine
from microfin_api.endpoints.accounts import archive_of, pool_of, require_own_account
from microfin_api.http.answers import (
    BalanceAt,
    EntryView,
    Statement,
    StatementTotals,
    answer,
    moment,
)
from microfin_api.http.parameters import (
    read_choice,
    read_flag,
    read_kind,
    read_moment,
    read_number,
)
from microfin_api.http.problems import Problem
from microfin_api.services import Services

LIMIT_MOST = 200
LIMIT_USUAL = 50
_CSV_PAGE = LIMIT_MOST  # so that no page blocks the event loop for long
_QUALITY = re.compile(r"[01](\.[0-9]{1,3})?", re.ASCII)
_HIGHEST_SEQ = 2**62
_CLOCKS_DIFFER = 5_000  # milliseconds; the times in answers are the broker's
_COLUMNS = (
    "seq",
    "time",
    "kind",
    "leg",
    "amount",
    "currency",
    "balanceAfter",
    "operationId",
    "counterparty",
    "reference",
)
_FORMULA_BEGINS = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""As OWASP lists them for CSV Injection, and the same in full width."""


async def statement(request: Request, services: Services) -> Response:
    """Show an account's entries, newest first, or with `at` its balance at that time."""
    session = await services.sessions.require(request)
    number = request.path_params["number"]
    currency = await require_own_account(services, number, session.user)
    at = read_moment(request, "at")
    if at is not None:
        if at > time.time() * 1000 + _CLOCKS_DIFFER:
            raise Problem("invalid_parameter", "at is in the future.")
        return await _balance_at(services, number, currency, at)
    wanted = StatementFilter(
        since=read_moment(request, "from"),
        until=read_moment(request, "to"),
        kind=read_kind(request),
    )
    limit = read_number(request, "limit", LIMIT_MOST)
    reading = _Reading(services, number, currency, wanted)
    reading.cursor = read_number(request, "cursor", _HIGHEST_SEQ)
    reading.oldest_first = read_choice(request, "order", ("newest", "oldest")) == "oldest"
    if _wants_csv(request):
        return await _as_csv(reading, limit)
    with_totals = read_flag(request, "totals")
    return await _as_json(reading, limit or LIMIT_USUAL, with_totals=with_totals)


def _wants_csv(request: Request) -> bool:
    """Return whether the client prefers CSV to JSON (RFC 9110, 12.5.1)."""
    weights: dict[str, Decimal] = {}
    for media_range in request.headers.get("accept", "").lower().split(","):
        kind, *parameters = (it.strip() for it in media_range.split(";"))
        quality = next((it[2:] for it in parameters if it.startswith("q=")), "1")
        weights[kind] = Decimal(quality) if _QUALITY.fullmatch(quality) else Decimal(1)
    return weights.get("text/csv", Decimal(0)) > weights.get("application/json", Decimal(0))


async def _balance_at(services: Services, number: str, currency: str, at: int) -> Response:
    pool, archive = pool_of(services, number), archive_of(services, number)
    then = await statements.balance_at(pool, number, at, archive)
    view = BalanceAt(
        account_number=number,
        currency=currency,
        at=moment(at),
        balance=to_decimal_text(then.balance, currency),
        seq=then.seq,
    )
    return answer(view)


class _Reading:
    """The reading of a statement, page by page.

    `cursor` is the entry at which the page before ended, None before the first page.
    """

    def __init__(
        self, services: Services, number: str, currency: str, wanted: StatementFilter
    ) -> None:
        self.number = number
        self.currency = currency
        self.cursor: int | None = None
        self.oldest_first = False
        self._pool = pool_of(services, number)
        self._archive = archive_of(services, number)
        self._wanted = wanted
        self._period: Period | None = None
        self._goes_on_in_archive = False

    async def page(self, limit: int) -> list[StatementLine]:
        """Return the next page. There may be more while `cursor` is not None."""
        if self.oldest_first:
            return await self._page_from_the_oldest(limit)
        wanted = msgspec.structs.replace(self._wanted, before_seq=self.cursor)
        page = await statements.entries(self._pool, self.number, wanted, limit, self._archive)
        self.cursor = page.next_seq
        self._goes_on_in_archive = page.archived and page.next_seq is not None
        return page.lines

    async def _page_from_the_oldest(self, limit: int) -> list[StatementLine]:
        page = await statement_periods.oldest_first(
            self._pool,
            self.number,
            await self.period(),
            after_seq=self.cursor or 0,
            kind=self._wanted.kind,
            limit=limit,
            archive=self._archive,
        )
        self.cursor = page.next_seq
        return page.lines

    async def period(self) -> Period:
        """Return the period that is asked for, which ends with this request."""
        if self._period is None:
            wanted = self._wanted
            self._period = await statement_periods.period(
                self._pool, self.number, wanted.since, wanted.until, self._archive
            )
        return self._period

    async def totals(self) -> Totals:
        """Return what the period adds up to. Raises `Problem` if that is too much work."""
        wanted = await self.period()
        found = await statement_periods.totals(
            self._pool, self.number, wanted, self._wanted.kind, self._archive
        )
        if found is None:
            raise Problem(
                "invalid_parameter",
                f"totals are of at most {TOTALLED_MOST} entries, and this period has "
                f"{wanted.entries}: ask for a shorter one.",
            )
        return found

    async def require_archive(self) -> None:
        """Raise `ArchiveFault` if the pages to come are archived and cannot be read."""
        if self._goes_on_in_archive:
            async with self._archive.reading(await what_is_archived(self._pool)):
                pass


async def _as_json(reading: _Reading, limit: int, *, with_totals: bool) -> Response:
    totals = await reading.totals() if with_totals else None
    lines = await reading.page(limit)
    currency = reading.currency
    view = Statement(
        account_number=reading.number,
        currency=currency,
        totals=None if totals is None else _totals(totals, currency),
        entries=[_entry(line, currency) for line in lines],
        next_cursor=None if reading.cursor is None else str(reading.cursor),
    )
    return answer(view)


def _totals(found: Totals, currency: str) -> StatementTotals:
    return StatementTotals(
        opening_balance=to_decimal_text(found.opening_balance, currency),
        closing_balance=to_decimal_text(found.closing_balance, currency),
        paid_in=to_decimal_text(found.paid_in, currency),
        paid_out=to_decimal_text(found.paid_out, currency),
    )


def _entry(line: StatementLine, currency: str) -> EntryView:
    return EntryView(
        seq=line.seq,
        time=moment(line.time),
        kind=line.kind,
        leg=line.leg,
        amount=to_decimal_text(line.amount, currency),
        balance_after=to_decimal_text(line.balance_after, currency),
        operation_id=line.operation,
        counterparty=line.counterparty or None,
        reference=line.reference or None,
    )


async def _as_csv(reading: _Reading, limit: int | None) -> Response:
    """Return the entries as text/csv (RFC 4180): `limit` of them, or all, page by page.

    Only the reference is a text that a person chose; the leading minus of other columns belongs to
    a number. What can be known to fail is found out before the answer begins; after that, a failure
    breaks the answer off, so that nobody takes it for a whole statement.
    """
    first = await reading.page(limit or _CSV_PAGE)
    await reading.require_archive()
    return StreamingResponse(
        _csv_pages(reading, limit, first),
        media_type="text/csv; charset=utf-8; header=present",
        headers={"Content-Disposition": f'attachment; filename="statement-{reading.number}.csv"'},
    )


async def _csv_pages(
    reading: _Reading, limit: int | None, lines: list[StatementLine]
) -> AsyncIterator[str]:
    """Yield the columns' names, `lines`, and the pages after them."""
    yield _csv([_COLUMNS])
    left = limit
    while True:
        yield _csv([_row(line, reading.currency) for line in lines])
        left = None if left is None else left - len(lines)
        if reading.cursor is None or left == 0:
            return
        lines = await reading.page(left or _CSV_PAGE)


def _row(line: StatementLine, currency: str) -> tuple[str, ...]:
    return (
        str(line.seq),
        moment(line.time),
        line.kind,
        line.leg,
        to_decimal_text(line.amount, currency),
        currency,
        to_decimal_text(line.balance_after, currency),
        line.operation,
        line.counterparty,
        _harmless(line.reference),
    )


def _harmless(text: str) -> str:
    """Return a text that no spreadsheet takes for a formula.

    It begins with an apostrophe, which spreadsheets do not show.
    """
    return f"'{text}" if text.startswith(_FORMULA_BEGINS) else text


def _csv(rows: list[tuple[str, ...]]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue()
