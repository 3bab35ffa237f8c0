"""How long a deposit of the mix takes at a rate that both commits carry."""

from typing import Final

from microfin_loadtest.figures.goal import Figure, Measurement
from microfin_loadtest.figures.part import WORKERS, Part, Turn


def measure(turn: Turn) -> Measurement:
    """Make one run."""
    with turn.checkout.platform(WORKERS):
        turn.warm_up()
        report = turn.checkout.load("mix.js", turn.settings.rate, turn.settings.seconds)
    deposit = report["latency_ms"].get("deposit", {})
    return {
        "p50": deposit.get("p50"),
        "p99": deposit.get("p99"),
        "cpu_ms_per_request": report["cpu_ms_per_request"],
        "reasons": report["reasons"],
    }


LATENCY: Final = Part(
    name="latency",
    about="the mix at --rate: p50 and p99 of a deposit",
    figures=(
        Figure("p50", "mix at the given rate, deposit p50", "ms", 0.3, is_ratio=True),
        Figure("p99", "mix at the given rate, deposit p99", "ms", 0.4, is_ratio=True),
    ),
    measure=measure,
)
