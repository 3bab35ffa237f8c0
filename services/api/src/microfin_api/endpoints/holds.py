"""Holds: money that is set aside, captured, released, and shown."""

import re
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from microfin.ledger.account_number import is_account_number
from microfin.ledger.money import to_decimal_text
from microfin.ledger.operation import Outcome
from microfin.ledger.records import Hold
from microfin.postgres import holds, queries
from microfin.postgres.holds import HoldPlace
from microfin_api.endpoints.accounts import archive_of, pool_of, require_own_account
from microfin_api.endpoints.change import Asked, Change, at_once
from microfin_api.http.answers import HoldList, HoldState, HoldView, answer, hold_id, moment
from microfin_api.http.bodies import (
    CaptureBody,
    HoldBody,
    ReleaseBody,
    read_account_number,
    read_amount,
    read_body,
    read_optional_body,
)
from microfin_api.http.notes import read_notes
from microfin_api.http.parameters import read_number
from microfin_api.http.problems import Problem
from microfin_api.services import Services

LIMIT_MOST: Final = 200
LIMIT_USUAL: Final = 50

CURSOR: Final = r"[0-9]{1,15}\.[0-9a-f]{32}"
"""The place of a page's last hold: its end, in milliseconds, and the operation that made it."""

HOLD_ID: Final = r"[0-9]{12}-[0-9a-f]{32}"
"""The account, so that anybody knows its partition, and the operation that made the hold."""

_HOLD_ID: Final = re.compile(HOLD_ID, re.ASCII)
_CURSOR: Final = re.compile(CURSOR, re.ASCII)
_SECOND: Final = 1_000
_LOOKS: Final = 3  # a hold may be made, or end, between two questions

_ENDED_BY: Final[dict[str, HoldState]] = {
    "capture": "captured",
    "release": "released",
    "expire": "expired",
}


async def hold(request: Request, services: Services) -> Response:
    """Set money of one of the user's accounts aside."""
    change = await Change.begin(request, services)
    body = await read_body(request, HoldBody, services.settings.body_limit)
    account = read_account_number(body.account_number)
    receiver = ""
    if body.receiver_account_number is not None:
        receiver = read_account_number(body.receiver_account_number)
    amount = read_amount(body.amount)
    notes = read_notes(body.reference, body.metadata)
    if receiver == account:
        raise Problem("same_account")
    return await change.move(
        Asked("hold", account, amount, receiver, lifetime=body.expires_in * _SECOND),
        notes,
        status=201,
        at_once=at_once(request, services),
    )


async def capture(request: Request, services: Services) -> Response:
    """Pay from a hold."""
    change = await Change.begin(request, services)
    account, operation = _read_id(request)
    body = await read_optional_body(request, CaptureBody, services.settings.body_limit)
    amount = read_amount(body.amount) if bytes(body.amount) else ""
    return await change.move(
        Asked("capture", account, amount, hold=operation, last=body.final),
        read_notes(body.reference, body.metadata),
        at_once=at_once(request, services),
    )


async def release(request: Request, services: Services) -> Response:
    """End a hold, and let its money be spent again."""
    change = await Change.begin(request, services)
    account, operation = _read_id(request)
    body = await read_optional_body(request, ReleaseBody, services.settings.body_limit)
    return await change.move(
        Asked("release", account, hold=operation),
        read_notes(body.reference, body.metadata),
        at_once=at_once(request, services),
    )


async def show_hold(request: Request, services: Services) -> Response:
    """Show a hold of one of the user's accounts, open or not."""
    session = await services.sessions.require(request)
    account, operation = _read_id(request)
    try:
        currency = await require_own_account(services, account, session.user)
    except Problem as problem:
        if problem.kind.code != "account_not_found":
            raise
        raise Problem("hold_not_found") from None
    pool, archive = pool_of(services, account), archive_of(services, account)
    for _ in range(_LOOKS):
        found = await holds.open_hold(pool, operation)
        if found is not None and found.account == account:
            return answer(_view(found, currency))
        made = await _made(services, account, operation)
        end = await holds.end_of(pool, operation, archive)
        if end is not None:
            return answer(_ended_view(made, end))
    raise Problem("unavailable", "The hold is neither open nor ended.")


async def _made(services: Services, account: str, operation: str) -> Outcome:
    """Return the outcome that made a hold of the account. Raises `Problem` where there is none."""
    known = await queries.operations(services.pools, [operation], services.archives)
    made = known[operation].request if operation in known else None
    if made is None or (made.kind, made.status, made.account) != ("hold", "settled", account):
        raise Problem("hold_not_found")
    return made


async def list_holds(request: Request, services: Services) -> Response:
    """List a page of the open holds of one of the user's accounts."""
    session = await services.sessions.require(request)
    number = request.query_params.get("account", "")
    currency = await require_own_account(services, number, session.user)
    limit = read_number(request, "limit", LIMIT_MOST) or LIMIT_USUAL
    found = await holds.open_holds(pool_of(services, number), number, _read_cursor(request), limit)
    last = found[-1] if len(found) == limit else None
    view = HoldList(
        holds=[_view(it, currency) for it in found],
        next_cursor=None if last is None else f"{last.ends}.{last.operation}",
    )
    return answer(view)


def _read_id(request: Request) -> tuple[str, str]:
    """Return the account and the operation in a hold's id. Raises `Problem` for what is none."""
    text: str = request.path_params["hold"]
    account, _, operation = text.partition("-")
    if not _HOLD_ID.fullmatch(text) or not is_account_number(account):
        raise Problem("hold_not_found")
    return account, operation


def _read_cursor(request: Request) -> HoldPlace | None:
    text = request.query_params.get("cursor")
    if text is None:
        return None
    if not _CURSOR.fullmatch(text):
        raise Problem("invalid_parameter", "cursor is the nextCursor of the previous page.")
    ends, _, operation = text.partition(".")
    return HoldPlace(int(ends), operation)


def _view(found: Hold, currency: str) -> HoldView:
    return HoldView(
        hold_id=hold_id(found.account, found.operation),
        state="open",
        account_number=found.account,
        receiver_account_number=found.receiver or None,
        amount=to_decimal_text(found.amount, currency),
        captured=to_decimal_text(found.amount - found.left, currency),
        left=to_decimal_text(found.left, currency),
        currency=currency,
        expires_at=moment(found.ends),
    )


def _ended_view(made: Outcome, end: Outcome) -> HoldView:
    amount, captured_last = made.amount or 0, end.amount or 0
    released = -end.held_change - captured_last
    return HoldView(
        hold_id=hold_id(made.account, made.operation),
        state=_ENDED_BY[end.kind],
        account_number=made.account,
        receiver_account_number=made.counterparty or None,
        amount=to_decimal_text(amount, made.currency),
        captured=to_decimal_text(amount - released, made.currency),
        left=to_decimal_text(0, made.currency),
        currency=made.currency,
        expires_at=moment(made.ends or made.time),
        ended_at=moment(end.time),
    )
