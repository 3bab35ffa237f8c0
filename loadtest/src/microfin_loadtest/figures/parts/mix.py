"""The highest rate of the mix that is carried, and what a request costs there."""

from collections.abc import Mapping
from statistics import median
from typing import Any, Final

from microfin_loadtest.figures.goal import Figure, Measurement
from microfin_loadtest.figures.part import WORKERS, Part, Turn
from microfin_loadtest.figures.search import Try, highest_rate, next_rate


def measure(turn: Turn) -> Measurement:
    """Search; each run is noted, so that an interrupted search goes on."""
    first = turn.settings.first_rate
    with turn.checkout.platform(WORKERS):
        turn.warm_up()
        while (rate := next_rate(_tries(turn), first)) is not None:
            report = turn.checkout.load("mix.js", rate, turn.settings.seconds)
            noted = {
                "rate": rate,
                "is_carried": is_carried(report),
                "cpu_ms_per_request": report["cpu_ms_per_request"],
                "why_not": report["reasons"],
            }
            turn.notes.add(noted)
            turn.say(f"{rate}/s: {'carried' if noted['is_carried'] else 'not carried'}")
    top = highest_rate(_tries(turn), first)
    there = [one for one in turn.notes.all() if one["rate"] == top]
    cost = median(one["cpu_ms_per_request"] for one in there)
    return {"rate": top, "cpu_ms_per_request": cost, "tries": turn.notes.all()}


def _tries(turn: Turn) -> list[Try]:
    return [Try(one["rate"], one["is_carried"]) for one in turn.notes.all()]


def is_carried(report: Mapping[str, Any]) -> bool:
    """Return whether a run dropped nothing, and every answer was final and no 503."""
    refused = any("503" in statuses for statuses in report["answers"].values())
    return bool(report["valid"]) and not (report["dropped"] or report["accepted"] or refused)


MIX: Final = Part(
    name="mix",
    about="the mix: highest rate without drops, and CPU per request there (a search, long)",
    figures=(
        Figure("rate", "mix, highest rate", "/s", 2.5, at_least=True, is_ratio=True),
        Figure("cpu_ms_per_request", "CPU per request there", "ms", 0.5, is_ratio=True),
    ),
    measure=measure,
    repeats_itself=True,
)
