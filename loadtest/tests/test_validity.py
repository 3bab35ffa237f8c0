"""Which runs count."""

from typing import Any

import pytest

from microfin_loadtest.summary import LoadFigures
from microfin_loadtest.validity import why_invalid
from support.canned import figures

CLEAN = {"ok": True}
FUNDS = frozenset({"insufficient_funds"})
DECIDED = {"settled": 1279, "debited": 218, "rejected": 2}


def judge(
    measured: LoadFigures,
    rejections: frozenset[str] = FUNDS,
    allowed: frozenset[int] = frozenset(),
    decided: dict[str, int] = DECIDED,
    audit: dict[str, Any] = CLEAN,
) -> str:
    return " ".join(why_invalid(measured, rejections, allowed, decided, audit))


def test_a_run_counts_with_rejections_that_belong_to_its_script() -> None:
    assert judge(figures()) == ""


def test_a_rejection_that_does_not_belong_to_the_script() -> None:
    assert judge(figures(), rejections=frozenset()) == (
        "2 operations were rejected by a rule that must not reject."
    )
    frozen = figures(answers_deposit_422={"count": 3}, problem_account_frozen={"count": 3})
    assert judge(frozen).startswith("3 operations were rejected")


def test_drops() -> None:
    assert judge(figures(dropped_iterations={"count": 7})) == "7 iterations were dropped."


def test_nothing_done() -> None:
    assert "No iteration was done." in judge(figures(iterations={"count": 0}))


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (0, "4 requests got no answer."),
        (400, "4 requests were answered 400."),
        (503, "4 requests were answered 503."),
        (999, "4 requests got an unknown status."),
    ],
)
def test_unexpected_statuses(status: int, reason: str) -> None:
    bad = figures(**{f"answers_transfer_{status}": {"count": 4}})
    assert judge(bad) == reason
    assert judge(bad, allowed=frozenset({status})) == ""


def test_a_200_that_is_not_settled() -> None:
    assert "without being settled" in judge(figures(problem_not_settled={"count": 1}))


def test_settled_answers_that_the_databases_do_not_hold() -> None:
    lost = judge(figures(), decided={"settled": 1278, "debited": 218})
    assert lost == "1497 operations were answered as settled, but the databases have only 1496."


def test_a_failed_audit() -> None:
    assert "audit" in judge(figures(), audit={"ok": False, "violations": 1})
