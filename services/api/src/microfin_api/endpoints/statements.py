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
from microfin.postgres import statements
from microfin.postgres.archive_reading import what_is_archived
from microfin.postgres.statements import StatementFilter, StatementLine, StatementPage
from microfin_api.endpoints.accounts import archive_of, pool_of, require_own_account
from microfin_api.http.answers import BalanceAt, EntryView, Statement, answer, moment
from microfin_api.http.parameters import read_kind, read_moment, read_number
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
)


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
        before_seq=read_number(request, "cursor", _HIGHEST_SEQ),
        since=read_moment(request, "from"),
        until=read_moment(request, "to"),
        kind=read_kind(request),
    )
    limit = read_number(request, "limit", LIMIT_MOST)
    if _wants_csv(request):
        return await _as_csv(services, number, currency, wanted, limit)
    return await _as_json(services, number, currency, wanted, limit or LIMIT_USUAL)


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


async def _page(
    services: Services, number: str, wanted: StatementFilter, limit: int
) -> StatementPage:
    pool, archive = pool_of(services, number), archive_of(services, number)
    return await statements.entries(pool, number, wanted, limit, archive)


async def _as_json(
    services: Services, number: str, currency: str, wanted: StatementFilter, limit: int
) -> Response:
    page = await _page(services, number, wanted, limit)
    view = Statement(
        account_number=number,
        currency=currency,
        entries=[_entry(line, currency) for line in page.lines],
        next_cursor=None if page.next_seq is None else str(page.next_seq),
    )
    return answer(view)


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
    )


async def _as_csv(
    services: Services, number: str, currency: str, wanted: StatementFilter, limit: int | None
) -> Response:
    """Return the entries as text/csv (RFC 4180): `limit` of them, or all, page by page.

    No column holds a text that a person chose, so none can be a spreadsheet's formula; a leading
    minus belongs to a number. What can be known to fail is found out before the answer begins;
    after that, a failure breaks the answer off, so that nobody takes it for a whole statement.
    """
    first = await _page(services, number, wanted, limit or _CSV_PAGE)
    if first.archived and first.next_seq is not None:
        archived = await what_is_archived(pool_of(services, number))
        async with archive_of(services, number).reading(archived):
            pass
    return StreamingResponse(
        _csv_pages(services, number, currency, wanted, limit, first),
        media_type="text/csv; charset=utf-8; header=present",
        headers={"Content-Disposition": f'attachment; filename="statement-{number}.csv"'},
    )


async def _csv_pages(
    services: Services,
    number: str,
    currency: str,
    wanted: StatementFilter,
    limit: int | None,
    page: StatementPage,
) -> AsyncIterator[str]:
    """Yield the columns' names, `page`, and the pages after it."""
    yield _csv([_COLUMNS])
    left = limit
    while True:
        yield _csv([_row(line, currency) for line in page.lines])
        left = None if left is None else left - len(page.lines)
        if page.next_seq is None or left == 0:
            return
        wanted = msgspec.structs.replace(wanted, before_seq=page.next_seq)
        page = await _page(services, number, wanted, left or _CSV_PAGE)


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
    )


def _csv(rows: list[tuple[str, ...]]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue()
