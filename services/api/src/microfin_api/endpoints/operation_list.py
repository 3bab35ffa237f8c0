"""The list of a user's own operations: what they asked for, in the order of decision.

No table has it. What moved money is in the statements of the accounts that it was asked of; what
did not is among their attempts. Each of these streams is in order, and they are merged by time.
"""

import base64
import binascii
from collections.abc import Sequence
from typing import Annotated, Final

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from microfin.ledger.operation import Kind
from microfin.postgres import attempts, queries, statement_periods, statements
from microfin.postgres.attempts import AttemptFilter, AttemptPlace
from microfin.postgres.statements import StatementFilter, StatementLine, StatementPage
from microfin_api.endpoints.accounts import archive_of, pool_of, require_own_account
from microfin_api.endpoints.outcome_answers import operation_view
from microfin_api.http.answers import OperationList, answer
from microfin_api.http.parameters import (
    read_choice,
    read_kind,
    read_moment,
    read_number,
    read_text,
)
from microfin_api.http.problems import Problem
from microfin_api.services import Services

LIMIT_MOST: Final = 200
LIMIT_USUAL: Final = 50
ACCOUNTS_MOST: Final = 20
"""The most accounts whose operations are merged; of more, one must be named."""

STATUSES: Final = ("in_transit", "settled", "rejected", "refunded")
CURSOR_MOST: Final = 8_192
"""Characters of a cursor: it has a place in two streams of each account."""


class _Place(msgspec.Struct, array_like=True):
    """How far an account was read; `seq` and `attempt` are None at the beginning."""

    number: str
    seq: Annotated[int, Meta(ge=1, le=2**62)] | None = None
    attempt: AttemptPlace | None = None
    moved_ended: bool = False
    attempts_ended: bool = False


class _Item(msgspec.Struct, frozen=True):
    """An operation in a stream, and where the stream goes on after it."""

    time: int
    operation: str
    after: int | AttemptPlace


class _Stream(msgspec.Struct):
    """What was read of one stream of an account, and how many of its items were taken.

    Behind them the stream goes on at `goes_on`; if that is None, it has ended. Where what follows
    is archived, it is of `follow_until` or before.
    """

    items: list[_Item]
    goes_on: int | AttemptPlace | None
    follow_until: int | None = None
    taken: int = 0

    def may_come_before(self, time: int) -> bool:
        """Return whether what was not read yet may come before an item of `time`."""
        if self.taken < len(self.items) or self.goes_on is None:
            return False
        return self.follow_until is None or self.follow_until >= time

    @property
    def after(self) -> int | AttemptPlace | None:
        """Where the stream goes on after what was taken."""
        return self.goes_on if self.taken == len(self.items) else self.items[self.taken - 1].after


class _Wanted(msgspec.Struct, frozen=True):
    """What is asked for."""

    user: str
    oldest_first: bool
    since: int | None
    until: int | None
    kind: Kind | None
    limit: int


_WITHOUT_ENTRIES: Final = ("open", "set_state", "hold", "release", "expire")

_decode_cursor = msgspec.json.Decoder(list[_Place]).decode


async def list_operations(request: Request, services: Services) -> Response:
    """List a page of the user's own operations."""
    session = await services.sessions.require(request)
    wanted = _Wanted(
        session.user,
        read_choice(request, "order", ("newest", "oldest")) == "oldest",
        read_moment(request, "from"),
        read_moment(request, "to"),
        read_kind(request),
        read_number(request, "limit", LIMIT_MOST) or LIMIT_USUAL,
    )
    status = read_choice(request, "status", ("", *STATUSES))
    reference, name = read_text(request, "reference"), read_text(request, "metadata")
    account = request.query_params.get("account")
    places = await _places(request, services, session.user, account)
    ids, following = await _read_page(services, places, wanted)
    if not ids:  # perhaps all is in the archive, which is read only where the ledger ends
        ids, following = await _read_page(services, following, wanted)
    found = await queries.operations(services.pools, ids, services.archives) if ids else {}
    views = [operation_view(found[it].operation) for it in ids if it in found]
    shown = [
        view
        for view in views
        if (not status or view.status == status)
        and (reference is None or view.reference == reference)
        and (name is None or name in (view.metadata or {}))
    ]
    more = any(not (place.moved_ended and place.attempts_ended) for place in following)
    return answer(OperationList(operations=shown, next_cursor=_cursor(following) if more else None))


async def _places(
    request: Request, services: Services, user: str, account: str | None
) -> list[_Place]:
    """Return where each account's streams go on. Raises `Problem` for accounts of others."""
    text = request.query_params.get("cursor")
    if text is not None:
        places = _read_cursor(text)
        if account is not None and [it.number for it in places] != [account]:
            raise Problem("invalid_parameter", "cursor is of a list of other accounts.")
        for place in places:
            await require_own_account(services, place.number, user)
        return places
    if account is not None:
        await require_own_account(services, account, user)
        return [_Place(account)]
    own = await queries.accounts_of(services.pools, user, None, ACCOUNTS_MOST + 1)
    if len(own) > ACCOUNTS_MOST:
        raise Problem(
            "invalid_parameter",
            f"You have more than {ACCOUNTS_MOST} accounts: name one of them in account.",
        )
    return [_Place(it.number) for it in own]


def _read_cursor(text: str) -> list[_Place]:
    try:
        places = _decode_cursor(base64.urlsafe_b64decode(text[:CURSOR_MOST].encode()))
    except (msgspec.MsgspecError, binascii.Error, ValueError):
        raise _not_a_cursor() from None
    if not 1 <= len(places) <= ACCOUNTS_MOST:
        raise _not_a_cursor()
    return places


def _not_a_cursor() -> Problem:
    return Problem("invalid_parameter", "cursor is the nextCursor of the previous page.")


def _cursor(places: Sequence[_Place]) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(places)).decode()


async def _read_page(
    services: Services, places: Sequence[_Place], wanted: _Wanted
) -> tuple[list[str], list[_Place]]:
    """Return the next operations, and how far each account was read then."""
    streams = {place.number: await _read_account(services, place, wanted) for place in places}
    ids = _merge([it for pair in streams.values() for it in pair if it is not None], wanted)
    return ids, [_following(place, *streams[place.number]) for place in places]


async def _read_account(
    services: Services, place: _Place, wanted: _Wanted
) -> tuple[_Stream | None, _Stream | None]:
    """Read on in both streams of an account; None for one that has ended."""
    return (
        None if place.moved_ended else await _read_moved(services, place, wanted),
        None if place.attempts_ended else await _read_attempts(services, place, wanted),
    )


async def _read_moved(services: Services, place: _Place, wanted: _Wanted) -> _Stream:
    if wanted.kind in _WITHOUT_ENTRIES:
        return _Stream([], None)
    read = _read_oldest if wanted.oldest_first else _read_newest
    page = await read(services, place, wanted)
    items = [_Item(it.time, it.operation, it.seq) for it in page.lines if _is_own(it)]
    return _Stream(items, page.next_seq, page.follow_until)


async def _read_oldest(services: Services, place: _Place, wanted: _Wanted) -> StatementPage:
    pool, archive = pool_of(services, place.number), archive_of(services, place.number)
    period = await statement_periods.period(pool, place.number, wanted.since, wanted.until, archive)
    page = await statement_periods.oldest_first(
        pool,
        place.number,
        period,
        after_seq=place.seq or 0,
        kind=wanted.kind,
        limit=wanted.limit,
        archive=archive,
    )
    return StatementPage(page.lines, page.next_seq)


async def _read_newest(services: Services, place: _Place, wanted: _Wanted) -> StatementPage:
    """Read entries down to where the archive begins, or there if the ledger was read before."""
    pool, number = pool_of(services, place.number), place.number
    asked = StatementFilter(
        before_seq=place.seq, since=wanted.since, until=wanted.until, kind=wanted.kind
    )
    page = await statements.entries_to_border(pool, number, asked, wanted.limit)
    if page.follow_until is None or place.seq is None or place.seq > (page.next_seq or 0):
        return page
    return await statements.entries(pool, number, asked, wanted.limit, archive_of(services, number))


def _is_own(line: StatementLine) -> bool:
    """Return whether an entry is of an operation that was asked of this account."""
    return line.leg == "request" and (line.kind == "deposit" or line.amount < 0)


async def _read_attempts(services: Services, place: _Place, wanted: _Wanted) -> _Stream:
    page = await attempts.attempts(
        pool_of(services, place.number),
        place.number,
        wanted.user,
        AttemptFilter(
            oldest_first=wanted.oldest_first,
            place=place.attempt,
            since=wanted.since,
            until=wanted.until,
        ),
        wanted.limit,
        archive_of(services, place.number),
    )
    items = [
        _Item(it.place.time, it.place.operation, it.place)
        for it in page.attempts
        if wanted.kind in (None, it.kind)
    ]
    return _Stream(items, page.goes_on, page.follow_until)


def _merge(streams: Sequence[_Stream], wanted: _Wanted) -> list[str]:
    """Take the first operations of all streams.

    Where a stream is read out, what comes later is not known before more of it is read.
    """
    sign = 1 if wanted.oldest_first else -1
    ids: list[str] = []
    while len(ids) < wanted.limit:
        heads = [it for it in streams if it.taken < len(it.items)]
        if not heads:
            break
        first = min(heads, key=lambda it: sign * it.items[it.taken].time)
        item = first.items[first.taken]
        if any(it.may_come_before(item.time) for it in streams):
            break
        ids.append(item.operation)
        first.taken += 1
    return list(dict.fromkeys(ids))


def _following(place: _Place, moved: _Stream | None, tried: _Stream | None) -> _Place:
    """Return where an account's streams go on after what was taken of them."""
    seq = place.seq if moved is None or not _is_begun(moved) else moved.after
    attempt = place.attempt if tried is None or not _is_begun(tried) else tried.after
    return _Place(
        place.number,
        seq if isinstance(seq, int) else None,
        attempt if isinstance(attempt, AttemptPlace) else None,
        moved is None or (_is_begun(moved) and moved.after is None),
        tried is None or (_is_begun(tried) and tried.after is None),
    )


def _is_begun(stream: _Stream) -> bool:
    """Return whether the stream goes on elsewhere than where it was read from."""
    return stream.taken > 0 or not stream.items
