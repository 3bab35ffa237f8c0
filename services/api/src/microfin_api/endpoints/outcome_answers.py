"""The answers to outcomes, and the problems of rejections."""

from typing import Any

from microfin.ledger.money import to_decimal_text
from microfin.ledger.operation import Operation
from microfin_api.http.answers import (
    AnswerBody,
    Moved,
    Opened,
    OperationView,
    Transferred,
    moment,
)
from microfin_api.http.problems import Problem


def settled_view(operation: Operation) -> AnswerBody:
    """Return the answer for a settled operation."""
    currency = operation.currency
    balance = to_decimal_text(operation.balance or 0, currency)
    if operation.kind == "open":
        return Opened(
            operation_id=operation.operation,
            status="settled",
            account_number=operation.account,
            balance=balance,
            currency=currency,
            time=moment(operation.time),
        )
    shared: dict[str, Any] = {
        "operation_id": operation.operation,
        "status": "settled",
        "account_number": operation.account,
        "amount": to_decimal_text(operation.amount or 0, currency),
        "currency": currency,
        "balance": balance,
        "seq": operation.seq or 0,
        "time": moment(operation.time),
        "reference": operation.reference or None,
    }
    if operation.kind == "transfer":
        return Transferred(
            sender_account_number=operation.account,
            receiver_account_number=operation.counterparty,
            **shared,
        )
    return Moved(**shared)


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
    if own_account_is_missing(operation):
        detail = (
            "You have no such account. Check the number; the key of this request is used up, so "
            "send the right one with a new Idempotency-Key."
        )
    if operation.status == "refunded":
        detail = "The transfer could not be completed; its amount is back on the sender's account."
    own = own_account_is_missing(operation)
    code = "account_not_found" if own else operation.reason or "internal"
    return Problem(code, detail, status=404 if own else 422, **members)


def _shortfall(currency: str, funds: dict[str, str]) -> str:
    there = f"The account has {funds.get('available')} {currency}"
    if "needed" not in funds:
        return f"{there}, and no account may hold as much as was asked for."
    return f"{there}, {funds['needed']} {currency} is needed."


def own_account_is_missing(operation: Operation) -> bool:
    """Return whether the client has no such account: it is missing, or another user's."""
    return operation.reason == "not_owner" or (
        operation.reason == "account_not_found" and operation.at_account == operation.account
    )


def operation_view(operation: Operation) -> OperationView:
    """Return an operation as its owner sees it, in any state."""
    transfer = operation.kind == "transfer"
    # Nothing of another user's account is shown, not even its currency.
    currency = "" if own_account_is_missing(operation) else operation.currency
    reason = "account_not_found" if operation.reason == "not_owner" else operation.reason
    return OperationView(
        operation_id=operation.operation,
        status=operation.status,
        kind=operation.kind,
        account_number=operation.account,
        sender_account_number=operation.account if transfer else None,
        receiver_account_number=operation.counterparty if transfer else None,
        amount=_text(operation.amount, currency),
        currency=currency or None,
        balance=_text(operation.balance, currency),
        seq=operation.seq,
        reason=reason or None,
        reference=operation.reference or None,
        metadata=operation.metadata,
        time=moment(operation.time),
        **_funds(operation),
    )


def _funds(operation: Operation) -> dict[str, str]:
    """Return needed and available as decimals, if the rejection has them."""
    amounts = {"needed": operation.needed, "available": operation.available}
    return {
        name: to_decimal_text(amount, operation.currency)
        for name, amount in amounts.items()
        if amount is not None
    }


def _text(amount: int | None, currency: str) -> str | None:
    return None if amount is None else to_decimal_text(amount, currency)
