"""Compares one operation, as its client knows it, with its legs and its entries in the ledger."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from faults.finding import Finding
from faults.history import Answer, Asked
from faults.ledger import Entry, Leg, LegName


def compare(
    asked: Asked, legs: Mapping[LegName, Leg], entries: Sequence[Entry]
) -> Iterator[Finding]:
    """Compare one operation with its legs and its entries."""
    request = legs.get("request")
    if request is None:
        if asked.acknowledged is not None:
            yield Finding("lost", f"{asked.kind} was acknowledged", asked.operation, asked.account)
        for entry in entries:
            yield Finding("invented", "an entry without an outcome", entry.operation, entry.account)
        return
    yield from _body(asked, legs.values())
    yield from _arrival(asked, legs)
    yield from _effects(asked, legs, entries)
    yield from _answers(asked, legs, entries)


def _body(asked: Asked, legs: Iterable[Leg]) -> Iterator[Finding]:
    for leg in legs:
        account, counterparty = asked.account, asked.counterparty
        if leg.leg == "credit":
            account, counterparty = counterparty, account
        amount = asked.amount or None
        if asked.kind == "capture" and leg.leg == "request" and leg.status == "rejected":
            counterparty = leg.counterparty  # the hold names it, and may be gone
        if (
            leg.kind != asked.kind
            or leg.user not in (asked.user, "")
            or (account and (leg.account, leg.counterparty) != (account, counterparty))
            or (leg.amount is not None and leg.amount != amount)
            or leg.reference != asked.reference
            or (leg.leg == "request" and leg.hold != asked.hold)
        ):
            yield Finding("invented", f"{leg} is not what was asked", asked.operation, leg.account)


def _arrival(asked: Asked, legs: Mapping[LegName, Leg]) -> Iterator[Finding]:
    """Invariant 8: a debited transfer is credited or refunded, and nothing else is."""
    request, credit, refund = legs["request"], legs.get("credit"), legs.get("refund")
    if request.status != "debited":
        if credit is not None or refund is not None:
            yield Finding("doubled", "more legs than a request has", asked.operation, asked.account)
    elif credit is None:
        yield Finding("half", "debited, and not credited", asked.operation, asked.account)
    elif credit.status == "rejected" and refund is None:
        yield Finding("half", "debited, and not refunded", asked.operation, asked.account)
    elif credit.status == "settled" and refund is not None:
        yield Finding("doubled", "credited and refunded", asked.operation, asked.account)


def _effects(
    asked: Asked, legs: Mapping[LegName, Leg], entries: Sequence[Entry]
) -> Iterator[Finding]:
    """Every effect once, and no other."""
    expected = _expected(asked, legs)
    found: dict[tuple[str, LegName], Entry] = {}
    for entry in entries:
        place = (entry.account, entry.leg)
        if place in found:
            yield Finding("doubled", f"two entries of {entry.leg}", asked.operation, entry.account)
        elif expected.get(place) != entry.amount:
            yield Finding(
                "invented",
                f"an entry of {entry.amount}; expected: {expected.get(place)}",
                asked.operation,
                entry.account,
            )
        elif entry.reference != asked.reference:
            yield Finding(
                "invented", f"the reference {entry.reference}", asked.operation, entry.account
            )
        found[place] = entry
    for place in expected.keys() - found.keys():
        yield Finding("lost", f"no entry of {place[1]}", asked.operation, place[0])


def _expected(asked: Asked, legs: Mapping[LegName, Leg]) -> dict[tuple[str, LegName], int]:
    """Return the entries that an operation with these legs has, by what was asked for."""
    effects: dict[tuple[str, LegName], int] = {}
    status = legs["request"].status
    if asked.kind == "deposit" and status == "settled":
        effects[asked.account, "request"] = asked.amount
    elif asked.kind in ("withdraw", "transfer", "capture") and status != "rejected":
        effects[asked.account, "request"] = -asked.amount
        if status == "settled" and asked.counterparty:
            effects[asked.counterparty, "request"] = asked.amount
    credit = legs.get("credit")
    if credit is not None and credit.status == "settled":
        effects[asked.counterparty, "credit"] = asked.amount
    if "refund" in legs:
        effects[asked.account, "refund"] = asked.amount
    return effects


def _answers(
    asked: Asked, legs: Mapping[LegName, Leg], entries: Sequence[Entry]
) -> Iterator[Finding]:
    """Every final answer is true, and all are the same."""
    if not asked.answers:
        return
    truth = _truth(legs)
    for answer in asked.answers:
        if truth is None or (answer.status, answer.reason) != (truth.status, truth.reason):
            yield Finding(
                "contradicted", f"answered {answer}, it is {truth}", asked.operation, asked.account
            )
        elif answer.seq is not None and answer.seq and asked.kind != "open":
            given = (answer.account or asked.account, answer.seq, answer.balance)
            if given not in _places(asked, legs["request"], entries):
                yield Finding(
                    "contradicted", f"no entry is {answer}", asked.operation, asked.account
                )
    answered_ends = {(it.status, it.reason) for it in asked.answers}
    answered_entries = {(it.seq, it.balance) for it in asked.answers if it.seq}
    if len(answered_ends) > 1 or len(answered_entries) > 1:
        yield Finding(
            "contradicted", f"different answers: {asked.answers}", asked.operation, asked.account
        )


def _places(
    asked: Asked, request: Leg, entries: Sequence[Entry]
) -> set[tuple[str, int | None, int | None]]:
    """Return what an answer may name: account, seq and balance of an entry.

    What only changes what is held has none: it names the last one before it.
    """
    if asked.kind in ("hold", "release"):
        return {(request.account, request.seq, request.balance)}
    return {(it.account, it.seq, it.balance_after) for it in entries}


def _truth(legs: Mapping[LegName, Leg]) -> Answer | None:
    """Return the final answer that a client must get; None while that is not known."""
    request, credit = legs["request"], legs.get("credit")
    if request.status == "settled":
        return Answer("settled")
    if request.status == "rejected":
        reason = "account_not_found" if request.reason == "not_owner" else request.reason
        return Answer("rejected", reason)
    if credit is None:
        return None
    if credit.status == "settled":
        return Answer("settled")
    return Answer("refunded", credit.reason) if "refund" in legs else None
