"""What to do about a transfer whose legs do not add up: a pure decision.

A leg may have been only in the lost database, with its record trimmed from the log. The legs on
other shards often imply it. Then its command is made again, with the same id: it is decided once
and has no effect twice (invariant 4).
"""

from collections.abc import Iterable
from typing import Final

import msgspec

from microfin.ledger.money import to_canonical_amount
from microfin.ledger.operation import Leg, Outcome, released_by
from microfin.ledger.wire import Command
from microfin_tools.recovery.report import Transfer

OWED_CREDIT: Final = "debited, and neither credited nor refunded: the credit is missing"
OWED_REFUND: Final = "debited, and the credit was rejected: the refund is missing"
LOST_DEBIT: Final = "decided on the receiver's side, and its debit is missing"
LOST_REJECTION: Final = (
    "refunded, and the rejected credit is missing: sent again, it might be credited as well"
)
REFUSED_DEBIT: Final = "credited or refunded, and its debit was refused when it was decided again"
BOTH: Final = "credited and refunded as well"


class Unsettled(msgspec.Struct, frozen=True):
    """A transfer that does not add up. `command` would complete it; None: nothing can."""

    transfer: Transfer
    command: Command | None


def unsettled(outcomes: Iterable[Outcome]) -> Unsettled | None:
    """Return what is wrong with an operation, given the outcomes of its legs from all shards.

    None if it is complete or no transfer between partitions.
    """
    legs: dict[Leg, Outcome] = {outcome.leg: outcome for outcome in outcomes}
    request, credit, refund = legs.get("request"), legs.get("credit"), legs.get("refund")
    if request is None:
        return _without_request(credit, refund)
    if request.status != "debited":
        other = credit or refund
        return None if other is None else _describe(REFUSED_DEBIT, request, other, None)
    return _debited(request, credit, refund)


def _without_request(credit: Outcome | None, refund: Outcome | None) -> Unsettled | None:
    if credit is not None:
        # A rejected credit's outcome has no amount; its refund's has one.
        amount = credit.amount if credit.amount is not None or refund is None else refund.amount
        return _describe(LOST_DEBIT, refund, credit, _request_again(credit, amount))
    if refund is not None:
        return _describe(LOST_REJECTION, refund, refund, None)
    return None


def _debited(request: Outcome, credit: Outcome | None, refund: Outcome | None) -> Unsettled | None:
    if credit is None:
        if refund is None:
            return _describe(OWED_CREDIT, request, request, _credit_again(request))
        return _describe(LOST_REJECTION, request, refund, None)
    if credit.status == "settled":
        return None if refund is None else _describe(BOTH, request, credit, None)
    if refund is None:
        return _describe(OWED_REFUND, request, credit, _refund_again(request, credit))
    return None


def _describe(
    what: str, sent: Outcome | None, known: Outcome, command: Command | None
) -> Unsettled:
    """Describe it; `sent` is an outcome on the sender's account if there is one, `known` is any."""
    known_amount = known.amount if known.amount is not None or sent is None else sent.amount
    turned = known.leg == "credit"
    return Unsettled(
        Transfer(
            operation=known.operation,
            what=what,
            sender=known.counterparty if turned else known.account,
            receiver=known.account if turned else known.counterparty,
            amount=_text(known_amount, known.currency),
            currency=known.currency,
            time=known.time,
        ),
        command,
    )


def _text(amount: int | None, currency: str) -> str | None:
    return None if amount is None else to_canonical_amount(amount, currency)


def _credit_again(request: Outcome) -> Command | None:
    if request.amount is None:
        return None
    return Command(
        kind=request.kind,
        leg="credit",
        operation=request.operation,
        account=request.counterparty,
        counterparty=request.account,
        user=request.user,
        amount=to_canonical_amount(request.amount, request.currency),
        currency=request.currency,
        sender_seq=request.seq or 0,
        sender_balance=request.balance or 0,
        sender_held=request.held,
        reference=request.reference,
        hold=request.hold,
        hold_left=request.hold_left or 0,
        released=released_by(request) or 0,
    )


def _refund_again(request: Outcome, credit: Outcome) -> Command | None:
    if request.amount is None:
        return None
    return Command(
        kind=request.kind,
        leg="refund",
        operation=request.operation,
        account=request.account,
        counterparty=request.counterparty,
        user=request.user,
        amount=to_canonical_amount(request.amount, request.currency),
        currency=request.currency,
        reason=credit.reason or None,
        at_account=credit.at_account,
        reference=request.reference,
        hold=request.hold,
        hold_left=request.hold_left or 0,
        released=released_by(request) or 0,
    )


def _request_again(credit: Outcome, amount: int | None) -> Command | None:
    """Return the request as its credit shows it: metadata does not travel, and is lost.

    None for a capture, whose hold does not travel either.
    """
    if amount is None or credit.kind != "transfer":
        return None
    return Command(
        kind="transfer",
        leg="request",
        operation=credit.operation,
        account=credit.counterparty,
        counterparty=credit.account,
        user=credit.user,
        amount=to_canonical_amount(amount, credit.currency),
        reference=credit.reference,
    )
