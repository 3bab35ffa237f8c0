"""Operations: what a client requests, the legs, their outcomes, and the status that follows."""

from hashlib import blake2b
from typing import Final, Literal

import msgspec

from microfin.ledger.columns import Bigint, Moment
from microfin.ledger.notes import Metadata

Kind = Literal[
    "open",
    "deposit",
    "withdraw",
    "transfer",
    "set_state",
    "hold",
    "capture",
    "release",
    "expire",
]
Leg = Literal["request", "credit", "refund"]
OutcomeStatus = Literal["settled", "debited", "rejected"]
OperationStatus = Literal["accepted", "in_transit", "settled", "rejected", "refunded"]
AccountState = Literal["open", "frozen", "closed"]
Contra = Literal["cash", "in_transit"]

HOLD_KINDS: Final[frozenset[Kind]] = frozenset({"hold", "capture", "release", "expire"})
"""What makes a hold, takes from it and ends it."""

MONEY_KINDS: Final[frozenset[Kind]] = frozenset({"deposit", "withdraw", "transfer", "hold"})
"""The kinds that name an amount always; a capture may."""

FINAL: Final = frozenset({"settled", "rejected", "refunded"})
"""The statuses that an operation never leaves."""

Reason = Literal[
    "account_not_found",
    "account_frozen",
    "account_closed",
    "balance_limit",
    "balance_not_zero",
    "currency_mismatch",
    "expired",
    "hold_ended",
    "hold_exceeded",
    "hold_not_found",
    "insufficient_funds",
    "no_free_number",
    "not_owner",
    "quarantined",
    "same_account",
    "state_unchanged",
    "too_many_decimals",
    "unknown_currency",
]
"""Why a leg was rejected. Each is explained in `docs/reference/errors.md`."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The immutable record of one decided leg; there is exactly one per (operation, leg).

    Amounts and balances are minor units of `currency`. `seq` and `balance` are those of the entry
    that the leg wrote on `account`; `counterparty_seq` is that of the counterparty's entry, if one
    decision wrote both. `time` is milliseconds since the Unix epoch. `needed` is also None if the
    column cannot hold it: that is thousands of times the balance limit.

    `held` is what holds have set aside on `account` after this leg; of a rejection for want of
    funds, what they had set aside then. `hold` is the operation that made the hold which this one
    takes from or ends. `held_change` is by how much this leg changed `held`, `hold_left` what its
    hold had left after it: nothing if it has ended. `ends` is when a hold ends by itself.
    """

    operation: str
    leg: Leg
    kind: Kind
    status: OutcomeStatus
    account: str
    body_hash: bytes
    offset: Bigint
    time: Moment
    user: str = ""
    counterparty: str = ""
    amount: Bigint | None = None
    currency: str = ""
    seq: Bigint | None = None
    balance: Bigint | None = None
    counterparty_seq: Bigint | None = None
    reason: Reason | Literal[""] = ""
    at_account: str = ""
    needed: Bigint | None = None
    available: Bigint | None = None
    reference: str = ""
    metadata: Metadata | None = None
    held: Bigint = 0
    hold: str = ""
    held_change: Bigint = 0
    hold_left: Bigint | None = None
    ends: Moment | None = None


class Operation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An operation as its client sees it, computed from the outcomes of its legs.

    `account` is the account that the operation was sent to; `balance` and `seq` are those of this
    account after the operation (after the refund, if there was one), and so is `held`, what holds
    have set aside there. Amounts are minor units of `currency`. `at_account` is the account that
    `reason` is about. `hold`, `hold_left` and `ends` are as in the request's `Outcome`; `released`
    is what the operation gave back from its hold.
    """

    operation: str
    kind: Kind
    status: OperationStatus
    account: str
    time: int
    user: str = ""
    counterparty: str = ""
    amount: int | None = None
    currency: str = ""
    seq: int | None = None
    balance: int | None = None
    reason: Reason | Literal[""] = ""
    at_account: str = ""
    needed: int | None = None
    available: int | None = None
    reference: str = ""
    metadata: Metadata | None = None
    held: int = 0
    hold: str = ""
    hold_left: int | None = None
    released: int | None = None
    ends: int | None = None

    @property
    def final(self) -> bool:
        """Whether this status will never change."""
        return self.status in FINAL


def operation_id(user: str, key: str, kind: Kind, account: str) -> str:
    """Return the 128-bit id (32 hexadecimal digits) of the operation that `user` requests.

    The same user, key, kind and account give the same id, so an id occurs only on the partition of
    one account. For `open` the account is empty.
    """
    text = "\0".join((user, key, kind, account))
    return blake2b(text.encode(), digest_size=16).hexdigest()


def same_body(outcome: Outcome, body_hash: bytes) -> bool:
    """Return whether a repeat with `body_hash` requests what `outcome` decided.

    A quarantined request could not be read completely, so its hash means nothing.
    """
    return outcome.body_hash == body_hash or outcome.reason == "quarantined"


def derive_status(
    request: OutcomeStatus, credit: OutcomeStatus | None, refund: OutcomeStatus | None
) -> OperationStatus:
    """Return the status of the operation whose legs have these outcomes."""
    if request != "debited":
        return request
    if credit == "settled":
        return "settled"
    if refund == "settled":
        return "refunded"
    return "in_transit"


def add_up(request: Outcome, credit: Outcome | None, refund: Outcome | None) -> Operation:
    """Return the operation whose legs have these outcomes."""
    status = derive_status(
        request.status, credit.status if credit else None, refund.status if refund else None
    )
    explained = credit if status == "refunded" and credit is not None else request
    latest = {"refunded": refund, "settled": credit}.get(status) or request
    own = refund if status == "refunded" and refund is not None else request
    return Operation(
        operation=request.operation,
        kind=request.kind,
        status=status,
        account=request.account,
        time=latest.time,
        user=request.user,
        counterparty=request.counterparty,
        amount=request.amount,
        currency=request.currency,
        seq=own.seq,
        balance=own.balance,
        reason=explained.reason,
        at_account=explained.at_account,
        needed=explained.needed,
        available=explained.available,
        reference=request.reference,
        metadata=request.metadata,
        held=own.held,
        hold=request.hold,
        hold_left=request.hold_left,
        released=released_by(request),
        ends=request.ends,
    )


def released_by(request: Outcome) -> int | None:
    """Return what the request gave back from its hold, None if it is about no hold's end."""
    if not request.hold or request.hold_left is None:
        return None
    captured = request.amount or 0 if request.kind == "capture" else 0
    return -request.held_change - captured
