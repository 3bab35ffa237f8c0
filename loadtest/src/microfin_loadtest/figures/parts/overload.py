"""Three times what the platform carries."""

from collections.abc import Mapping
from typing import Any, Final

from microfin_loadtest.compare.client import Load
from microfin_loadtest.figures.goal import Figure, Measurement
from microfin_loadtest.figures.part import WORKERS, Part, Turn
from microfin_loadtest.figures.subject import Subject

_CLOSED_LOOP: Final = Load(256)
_TIMES: Final = 3


def measure(turn: Turn) -> Measurement:
    """Find the peak in a closed loop of transfers, then offer three times of it."""
    with turn.checkout.platform(WORKERS):
        turn.warm_up()
        peak = max(round(Subject(turn).measure(_CLOSED_LOOP).settled_per_second), _TIMES)
        turn.say(f"peak: {peak}/s")
        report = turn.checkout.overload(peak, _TIMES * peak, turn.settings.seconds)
    return {
        "peak": peak,
        "settled_against_peak": report["settled_against_peak"],
        "p99": report["overload"]["settled_ms"]["p99"],
        "wrong_answers": wrong_answers(report["overload"]),
        "reasons": report["reasons"],
    }


def wrong_answers(phase: Mapping[str, Any]) -> int:
    """Return how many requests got neither a settled answer nor 503 with Retry-After."""
    others = sum(
        number for status, number in phase["answers"].items() if status not in ("200", "503")
    )
    return int(others + phase["unanswered"] + phase["without_retry_after"])


OVERLOAD: Final = Part(
    name="overload",
    about="three times the peak: what settles, how fast, and how the rest is refused (needs wrk)",
    figures=(
        Figure(
            "settled_against_peak", "overload, settled against peak", "times", 0.9, at_least=True
        ),
        Figure("p99", "overload, p99 of the settled", "ms", 2000),
        Figure("wrong_answers", "overload, neither settled nor 503 with Retry-After", "", 0),
    ),
    measure=measure,
)
