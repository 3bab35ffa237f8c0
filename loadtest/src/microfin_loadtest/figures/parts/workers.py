"""What four workers cost against one, at the same offered rate."""

from typing import Any, Final

from microfin_loadtest.figures.goal import Figure, Measurement
from microfin_loadtest.figures.part import Part, Turn

_MANY: Final = 4


def measure(turn: Turn) -> Measurement:
    """Make one run with four workers and one with one."""
    many, one = _report(turn, _MANY), _report(turn, 1)
    cost, cost_of_one = many["cpu_ms_per_request"], one["cpu_ms_per_request"]
    return {
        "four_ms": cost,
        "one_ms": cost_of_one,
        "four_to_one": round(cost / cost_of_one, 3),
        "reasons": many["reasons"] + one["reasons"],
    }


def _report(turn: Turn, workers: int) -> dict[str, Any]:
    with turn.checkout.platform(workers):
        turn.warm_up()
        return turn.checkout.load("mix.js", turn.settings.rate, turn.settings.seconds)


WORKERS: Final = Part(
    name="workers",
    about="the mix at --rate: CPU per request with four workers against one",
    figures=(Figure("four_to_one", "CPU per request, 4 workers against 1", "times", 1.2),),
    measure=measure,
)
