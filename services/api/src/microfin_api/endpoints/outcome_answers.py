"""The answers to outcomes, and the problems of rejections."""

from typing import Any

from microfin.ledger.money import to_decimal_text
from microfin.ledger.operation import Operation
from microfin_api.http.answers import (
    AnswerBody,
    Captured,
    HoldMade,
    Moved,
    Opened,
    OperationView,
    Released,
    Transferred,
    hold_id,
    moment,
)
from microfin_api.http.problems import Problem


def settled_view(operation: Operation) -> AnswerBody:
    """Return the answer for a settled operation."""
    currency = operation.currency
    shared: dict[str, Any] = {
        "operation_id": operation.operation,
        "status": "settled",
        "account_number": operation.account,
        "currency": currency,
        "balance": to_decimal_text(operation.balance or 0, currency),
        "available": to_decimal_text((operation.balance or 0) - operation.held, currency),
        "time": moment(operation.time),
    }
    if operation.kind == "open":
        return Opened(**shared)
    shared["reference"] = operation.reference or None
    if operation.kind in ("hold", "capture", "release"):
        return _settled_on_hold(operation, shared)
    shared |= {
        "amount": to_decimal_text(operation.amount or 0, currency),
        "seq": operation.seq or 0,
    }
    if operation.kind == "transfer":
        return Transferred(
            sender_account_number=operation.account,
            receiver_account_number=operation.counterparty,
            **shared,
        )
    return Moved(**shared)


def _settled_on_hold(operation: Operation, shared: dict[str, Any]) -> AnswerBody:
    currency = operation.currency
    shared["hold_id"] = _hold_id(operation)
    released = to_decimal_text(operation.released or 0, currency)
    if operation.kind == "release":
        return Released(released=released, **shared)
    shared |= {
        "amount": to_decimal_text(operation.amount or 0, currency),
        "receiver_account_number": operation.counterparty or None,
    }
    if operation.kind == "hold":
        return HoldMade(expires_at=moment(operation.ends or operation.time), **shared)
    return Captured(
        released=released,
        left=to_decimal_text(operation.hold_left or 0, currency),
        seq=operation.seq or 0,
        **shared,
    )


def _hold_id(operation: Operation) -> str | None:
    """Return the id of the hold that an operation made, takes from or ends."""
    made_one = operation.kind == "hold" and operation.hold_left is not None
    hold = operation.operation if made_one else operation.hold
    return hold_id(operation.account, hold) if hold else None


def rejection(operation: Operation) -> Problem:
    """Return the problem for a rejected or refunded operation."""
    members: dict[str, Any] = {
        "operationId": operation.operation,
        "operationStatus": operation.status,
    }
    if operation.at_account:
        members["accountNumber"] = operation.at_account
    members |= _funds(operation)
    detail = ""
    if operation.reason == "insufficient_funds":
        detail = _shortfall(operation.currency, members)
    if operation.reason == "hold_exceeded":
        detail = _excess(operation.currency, members)
    if own_account_is_missing(operation):
        detail = (
            "You have no such account. Check the number; the key of this request is used up, so "
            "send the right one with a new Idempotency-Key."
        )
    if operation.status == "refunded":
        detail = "The transfer could not be completed; its amount is back on the sender's account."
    if operation.kind in ("capture", "release") and (
        operation.reason == "hold_not_found" or own_account_is_missing(operation)
    ):
        return Problem("hold_not_found", **members)
    own = own_account_is_missing(operation)
    code = "account_not_found" if own else operation.reason or "internal"
    return Problem(code, detail, status=404 if own else 422, **members)


def _shortfall(currency: str, funds: dict[str, str]) -> str:
    there = f"The account has {funds.get('available')} {currency} available"
    if "needed" not in funds:
        return f"{there}, and no account may hold as much as was asked for."
    return f"{there}, {funds['needed']} {currency} is needed."


def _excess(currency: str, funds: dict[str, str]) -> str:
    return f"The hold has {funds.get('available')} {currency} left."


def own_account_is_missing(operation: Operation) -> bool:
    """Return whether the client has no such account: it is missing, or another user's."""
    return operation.reason == "not_owner" or (
        operation.reason == "account_not_found" and operation.at_account == operation.account
    )


def operation_view(operation: Operation) -> OperationView:
    """Return an operation as its owner sees it, in any state."""
    transfer = operation.kind == "transfer"
    on_hold = operation.kind in ("hold", "capture")
    # Nothing of another user's account is shown, not even its currency.
    currency = "" if own_account_is_missing(operation) else operation.currency
    reason = "account_not_found" if operation.reason == "not_owner" else operation.reason
    return OperationView(
        operation_id=operation.operation,
        status=operation.status,
        kind=operation.kind,
        account_number=operation.account,
        sender_account_number=operation.account if transfer else None,
        receiver_account_number=(operation.counterparty or None) if transfer or on_hold else None,
        amount=_text(operation.amount, currency),
        currency=currency or None,
        balance=_text(operation.balance, currency),
        seq=operation.seq,
        reason=reason or None,
        reference=operation.reference or None,
        metadata=operation.metadata,
        hold_id=_hold_id(operation),
        released=_text(operation.released, currency),
        left=_text(operation.hold_left, currency),
        expires_at=None if operation.ends is None else moment(operation.ends),
        time=moment(operation.time),
        **_funds(operation),
    )


def _funds(operation: Operation) -> dict[str, str]:
    """Return needed and available as decimals: what a rejection saw, or what is left now."""
    available = operation.available
    if operation.balance is not None:
        available = operation.balance - operation.held
    amounts = {"needed": operation.needed, "available": available}
    return {
        name: to_decimal_text(amount, operation.currency)
        for name, amount in amounts.items()
        if amount is not None
    }


def _text(amount: int | None, currency: str) -> str | None:
    return None if amount is None else to_decimal_text(amount, currency)
