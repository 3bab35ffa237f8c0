"""Decides whether a run counts: nothing dropped, unexpected or lost, and a correct ledger."""

from collections import Counter
from collections.abc import Mapping, Set
from typing import Any, Final

from microfin_loadtest.summary import LoadFigures

GOOD: Final = frozenset({200, 201, 202})
REJECTED: Final = 422


def why_invalid(
    figures: LoadFigures,
    rejections: Set[str],
    allowed_statuses: Set[int],
    decided: Mapping[str, int],
    audit: Mapping[str, Any],
) -> list[str]:
    """Return why a run does not count, as sentences; empty if it counts.

    `rejections` are the codes by which a rule may reject in this script; `decided` are the
    operations that the databases have decided since the run began, by the request's status.
    """
    reasons = []
    if figures.done == 0:
        reasons.append("No iteration was done.")
    if figures.dropped:
        reasons.append(f"{figures.dropped} iterations were dropped.")
    reasons += _unexpected_answers(figures, rejections, allowed_statuses)
    durable = decided.get("settled", 0) + decided.get("debited", 0)
    if figures.settled > durable:
        reasons.append(
            f"{figures.settled} operations were answered as settled, but the databases have only "
            f"{durable}."
        )
    if not audit["ok"]:
        reasons.append("The audit found violations, or could not be made.")
    return reasons


def _unexpected_answers(
    figures: LoadFigures, rejections: Set[str], allowed_statuses: Set[int]
) -> list[str]:
    statuses: Counter[int] = Counter()
    for by_status in figures.answers.values():
        statuses.update(by_status)
    reasons = []
    for status, number in sorted(statuses.items()):
        if status not in GOOD | allowed_statuses | {REJECTED}:
            name = {0: "got no answer", 999: "got an unknown status"}.get(
                status, f"were answered {status}"
            )
            reasons.append(f"{number} requests {name}.")
    expected = sum(figures.problems.get(code, 0) for code in rejections)
    unexpected = statuses[REJECTED] - expected
    if unexpected > 0 and REJECTED not in allowed_statuses:
        reasons.append(f"{unexpected} operations were rejected by a rule that must not reject.")
    if untrue := figures.problems.get("not_settled", 0):
        reasons.append(f"{untrue} operations were answered 200 without being settled.")
    return reasons
