"""The bodies of answers. Amounts and balances are decimal strings, times RFC 3339 in UTC."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Final, Literal

import msgspec
from starlette.responses import Response

from microfin.ledger.operation import AccountState, Kind, Leg, OperationStatus

_encode = msgspec.json.Encoder().encode

Money = Annotated[str, msgspec.Meta(description="A decimal string.", examples=["12.50"])]
Moment = Annotated[
    str,
    msgspec.Meta(description="RFC 3339, UTC.", extra_json_schema={"format": "date-time"}),
]
OperationId = Annotated[
    str,
    msgspec.Meta(description="128 bits.", extra_json_schema={"pattern": "^[0-9a-f]{32}$"}),
]


HoldId = Annotated[
    str,
    msgspec.Meta(
        description="Names a hold. Use it as it is.",
        extra_json_schema={"pattern": "^[0-9]{12}-[0-9a-f]{32}$"},
    ),
]
HoldState = Literal["open", "captured", "released", "expired"]
Available = Annotated[
    str,
    msgspec.Meta(
        description="A decimal string: the balance without what holds have set aside.",
        examples=["12.50"],
    ),
]


class AnswerBody(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Base of all answers' bodies: names in camelCase, unknown values left out."""


class SignedIn(AnswerBody, frozen=True):
    """Who is signed in now. `sessionId` is also set as a cookie."""

    user_id: str
    name: str
    email: str
    session_id: str


EffectiveWithin = Annotated[
    int,
    msgspec.Meta(
        description="Sent if Redis did not take it: for this number of seconds a session that "
        "has ended may still be accepted."
    ),
]


class SignedOut(AnswerBody, frozen=True):
    """The session has ended, or all have."""

    signed_out: bool
    effective_within_seconds: EffectiveWithin = 0


class PasswordChanged(AnswerBody, frozen=True):
    """All earlier sessions have ended. `sessionId` is a new one, also set as a cookie."""

    session_id: str
    effective_within_seconds: EffectiveWithin = 0


class SessionView(AnswerBody, frozen=True):
    """One of the user's sessions. `id` names it for ending it and signs nobody in."""

    id: Annotated[str, msgspec.Meta(extra_json_schema={"pattern": "^[0-9a-f]{32}$"})]
    created_at: Moment
    last_used_at: Annotated[
        str,
        msgspec.Meta(
            description="Updated every few minutes.", extra_json_schema={"format": "date-time"}
        ),
    ]
    expires_at: Moment
    current: Annotated[bool, msgspec.Meta(description="Whether this request uses it.")] = False


class SessionList(AnswerBody, frozen=True):
    """The user's sessions, the newest first."""

    sessions: list[SessionView]


class Me(AnswerBody, frozen=True):
    """Who is signed in."""

    user_id: str
    name: str
    email: str


class AccountView(AnswerBody, frozen=True):
    """An account. What it shows was true at `asOf` or later."""

    account_number: str
    balance: Money
    available: Available
    held: Annotated[Money, msgspec.Meta(description="What open holds have set aside.")]
    currency: str
    state: AccountState
    seq: Annotated[int, msgspec.Meta(description="The number of the account's last entry.")]
    as_of: Moment


class AccountList(AnswerBody, frozen=True):
    """The user's accounts, oldest first. `nextCursor` is present if there may be more."""

    accounts: list[AccountView]
    next_cursor: str | None = None


class SettledAnswer(AnswerBody, frozen=True, kw_only=True):
    """What every settled operation is answered with. `balance` is the account's after it."""

    operation_id: OperationId
    status: Literal["settled"]
    account_number: str
    currency: str
    balance: Money
    available: Available
    time: Moment


class Opened(SettledAnswer, frozen=True):
    """A new account."""


class Moved(SettledAnswer, frozen=True, kw_only=True):
    """A settled deposit or withdrawal. `balance` is the account's after entry `seq`."""

    amount: Money
    seq: int
    reference: str | None = None


class Transferred(Moved, frozen=True, kw_only=True):
    """A settled transfer. `accountNumber`, `balance` and `seq` are the sender's."""

    sender_account_number: str
    receiver_account_number: str


class HoldMade(SettledAnswer, frozen=True, kw_only=True):
    """Money was set aside. It ends by itself at `expiresAt`."""

    hold_id: HoldId
    amount: Money
    expires_at: Moment
    reference: str | None = None
    receiver_account_number: str | None = None


class Captured(Moved, frozen=True, kw_only=True):
    """A settled capture. `left` is what the hold has left, `released` what it gave back."""

    hold_id: HoldId
    released: Money
    left: Money
    receiver_account_number: str | None = None


class Released(SettledAnswer, frozen=True, kw_only=True):
    """A hold was ended. `released` is what it gave back."""

    hold_id: HoldId
    released: Money
    reference: str | None = None


class HoldView(AnswerBody, frozen=True):
    """A hold. Of `amount`, `captured` was paid and `left` is still set aside."""

    hold_id: HoldId
    state: HoldState
    account_number: str
    amount: Money
    captured: Money
    left: Money
    currency: str
    expires_at: Moment
    ended_at: Moment | None = None
    receiver_account_number: str | None = None


class HoldList(AnswerBody, frozen=True):
    """An account's open holds, those that end first. `nextCursor` is present if there may be
    more."""

    holds: list[HoldView]
    next_cursor: str | None = None


class AcceptedOperation(AnswerBody, frozen=True):
    """An operation that is durable but not settled yet. Ask for it at the answer's Location."""

    operation_id: OperationId
    status: Literal["accepted", "in_transit"]


class OperationView(AnswerBody, frozen=True):
    """An operation. `reason` is a problem's code, if it was rejected or refunded."""

    operation_id: OperationId
    status: OperationStatus
    kind: Kind | None = None
    account_number: str | None = None
    sender_account_number: str | None = None
    receiver_account_number: str | None = None
    amount: Money | None = None
    currency: str | None = None
    balance: Money | None = None
    seq: int | None = None
    reason: str | None = None
    needed: Money | None = None
    available: Money | None = None
    reference: str | None = None
    metadata: dict[str, str] | None = None
    hold_id: HoldId | None = None
    released: Money | None = None
    left: Money | None = None
    expires_at: Moment | None = None
    time: Moment | None = None


class OperationList(AnswerBody, frozen=True):
    """Operations in the order of decision. `nextCursor` is present if there may be more: a page
    may have fewer operations than its limit, even none."""

    operations: list[OperationView]
    next_cursor: str | None = None


class EntryView(AnswerBody, frozen=True):
    """One line of a statement. `amount` is negative if money left the account."""

    seq: int
    time: Moment
    kind: Kind
    leg: Leg
    amount: Money
    balance_after: Money
    operation_id: OperationId
    counterparty: str | None = None
    reference: str | None = None


class StatementTotals(AnswerBody, frozen=True):
    """What a period adds up to: the balances before its first and after its last entry, and the
    sums of what came in and went out (of one kind, if only that is asked for)."""

    opening_balance: Money
    closing_balance: Money
    paid_in: Money
    paid_out: Money


class Statement(AnswerBody, frozen=True):
    """Entries, newest first unless asked for otherwise. `nextCursor` is present if there may be
    more."""

    account_number: str
    currency: str
    entries: list[EntryView]
    next_cursor: str | None = None
    totals: StatementTotals | None = None


class BalanceAt(AnswerBody, frozen=True):
    """The balance at a moment, after entry `seq` (0: the account had none yet)."""

    account_number: str
    currency: str
    at: Moment
    balance: Money
    seq: int


class Health(AnswerBody, frozen=True):
    """Whether a process lives, or is ready. `missing` says what it waits for, `degraded` what it
    works without: answers are slower, or some requests are refused."""

    status: Literal["ok", "ready", "not ready"]
    missing: list[str] = []
    degraded: list[str] = []


JSON: Final = "application/json"


def answer(
    view: AnswerBody, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return `view` as a JSON response."""
    return Response(_encode(view), status, media_type=JSON, headers=headers)


def hold_id(account: str, operation: str) -> str:
    """Return the id of the hold that `operation` made on `account`."""
    return f"{account}-{operation}"


def moment(milliseconds: int) -> str:
    """Return milliseconds since the Unix epoch as RFC 3339."""
    seconds = datetime.fromtimestamp(milliseconds // 1000, UTC).isoformat()
    return f"{seconds.removesuffix('+00:00')}.{milliseconds % 1000:03d}Z"
