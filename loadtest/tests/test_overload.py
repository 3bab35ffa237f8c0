"""The figures of an overload run, and what makes it count."""

from typing import Any

import pytest

from microfin_loadtest.overload import phase_figures, why_invalid

PRINTED = {
    "answers": {"503": 900, "200": 100},
    "settled_by_ms": {"30": 1, "7": 98, "25": 1},
    "dropped": 0,
    "unanswered": 0,
    "without_retry_after": 0,
}


def test_latencies_are_of_the_settled_alone() -> None:
    phase = phase_figures(PRINTED, 500, 2)
    assert phase["settled_per_second"] == 50
    assert phase["settled_ms"] == {"p50": 7, "p95": 7, "p99": 25, "max": 30}


def test_without_a_settled_request_there_is_no_latency() -> None:
    phase = phase_figures({**PRINTED, "settled_by_ms": {}}, 500, 2)
    assert phase["settled_ms"] == {"p50": None, "p95": None, "p99": None, "max": None}


def phases(**overload: Any) -> dict[str, Any]:
    fine = phase_figures({**PRINTED, "answers": {"200": 100}}, 500, 2)
    return {
        "peak": fine,
        "overload": {**phase_figures(PRINTED, 5000, 2), **overload},
        "after": fine,
    }


def test_a_run_counts_where_only_the_overload_was_refused() -> None:
    assert why_invalid(phases(dropped=10), 300, {"ok": True}, rested=True) == []


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"answers": {"200": 100, "500": 1}}, "answers 500"),
        ({"unanswered": 1}, "no answer"),
        ({"without_retry_after": 1}, "Retry-After"),
    ],
)
def test_it_does_not_count_where_an_answer_was_wrong(changed: Any, reason: str) -> None:
    (said,) = why_invalid(phases(**changed), 300, {"ok": True}, rested=True)
    assert reason in said


def test_it_does_not_count_where_the_peak_was_refused_or_the_ledger_is_wrong() -> None:
    wrong = phases()
    wrong["peak"] = {**wrong["overload"], "dropped": 2}
    reasons = " ".join(why_invalid(wrong, 299, {"ok": False}, rested=False))
    for part in ("peak: answers 503", "2 requests were dropped", "299", "backlog", "audit"):
        assert part in reasons
