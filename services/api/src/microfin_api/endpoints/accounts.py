"""Opening and showing accounts."""

import re
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from microfin.ledger.account_number import is_account_number
from microfin.ledger.money import to_decimal_text
from microfin.ledger.routing import shard_of_account
from microfin.postgres import queries
from microfin.postgres.archive_reading import Archive
from microfin.postgres.connections import Pool
from microfin.postgres.queries import AccountPlace, StoredAccount
from microfin_api.endpoints.change import Change, prefers_async
from microfin_api.http.answers import AccountList, AccountView, answer, moment
from microfin_api.http.bodies import OpenBody, read_currency, read_optional_body
from microfin_api.http.parameters import read_number
from microfin_api.http.problems import Problem
from microfin_api.services import Services

LIMIT_MOST: Final = 200
"""Accounts on a page, and the default: most clients need one page only."""

CURSOR: Final = r"[0-9]{1,15}\.[0-9]{12}"
"""The place of a page's last account: when it was opened, in milliseconds, and its number."""

_CURSOR: Final = re.compile(CURSOR, re.ASCII)

DEPRECATED = {"Deprecation": "@1795305600", "Link": '</docs>; rel="deprecation"'}
"""Since 2026-11-22 (RFC 9745)."""


async def open_account(request: Request, services: Services) -> Response:
    """Open an account."""
    change = await Change.begin(request, services)
    body = await read_optional_body(request, OpenBody, services.settings.body_limit)
    currency = _currency(body, services)
    return await change.open(currency, status=201, at_once=prefers_async(request))


async def generate_account(request: Request, services: Services) -> Response:
    """Open an account as existing clients do: by GET too, and answered with 200."""
    change = await Change.begin(request, services)
    body = OpenBody()
    if request.method == "POST":
        body = await read_optional_body(request, OpenBody, services.settings.body_limit)
    currency = _currency(body, services)
    response = await change.open(currency, status=200, at_once=False)
    response.headers.update(DEPRECATED)
    return response


def _currency(body: OpenBody, services: Services) -> str:
    if body.currency is None:
        return read_currency(services.settings.default_currency)
    return read_currency(body.currency)


async def list_accounts(request: Request, services: Services) -> Response:
    """List a page of the user's accounts, oldest first, as PostgreSQL has them."""
    session = await services.sessions.require(request)
    after = _read_cursor(request)
    limit = read_number(request, "limit", LIMIT_MOST) or LIMIT_MOST
    stored = await queries.accounts_of(services.pools, session.user, after, limit)
    last = stored[-1] if len(stored) == limit else None
    view = AccountList(
        accounts=[_view(account) for account in stored],
        next_cursor=None if last is None else f"{last.opened_at}.{last.number}",
    )
    return answer(view)


def _read_cursor(request: Request) -> AccountPlace | None:
    text = request.query_params.get("cursor")
    if text is None:
        return None
    if not _CURSOR.fullmatch(text):
        raise Problem("invalid_parameter", "cursor is the nextCursor of the previous page.")
    opened_at, _, number = text.partition(".")
    return AccountPlace(int(opened_at), number)


async def show_account(request: Request, services: Services) -> Response:
    """Show one account, as PostgreSQL has it."""
    session = await services.sessions.require(request)
    number = request.path_params["number"]
    found = await services.accounts.read(number) if is_account_number(number) else None
    if found is None or found.owner != session.user:
        raise Problem("account_not_found")
    return answer(_view(found))


async def require_own_account(services: Services, number: str, user: str) -> str:
    """Return the currency of the user's account. Raises `Problem` if it is not the user's."""
    identity = await services.accounts.identity(number) if is_account_number(number) else None
    if identity is None or identity.owner != user:
        raise Problem("account_not_found")
    return identity.currency


def pool_of(services: Services, number: str) -> Pool:
    """Return the pool of the account's shard."""
    return services.pools[shard_of_account(number, len(services.pools))]


def archive_of(services: Services, number: str) -> Archive:
    """Return the archive of the account's shard."""
    return services.archives[shard_of_account(number, len(services.archives))]


def _view(account: StoredAccount) -> AccountView:
    return AccountView(
        account_number=account.number,
        balance=to_decimal_text(account.balance, account.currency),
        available=to_decimal_text(account.balance - account.held, account.currency),
        held=to_decimal_text(account.held, account.currency),
        currency=account.currency,
        state=account.state,
        seq=account.seq,
        as_of=moment(account.read_at),
    )
