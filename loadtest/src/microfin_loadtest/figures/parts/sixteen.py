"""Transfers between accounts at random, on sixteen connections in a closed loop."""

from typing import Final

from microfin_loadtest.compare.client import Load
from microfin_loadtest.figures.goal import Figure, Measurement
from microfin_loadtest.figures.part import WORKERS, Part, Turn
from microfin_loadtest.figures.subject import Subject


def measure(turn: Turn) -> Measurement:
    """Make one run."""
    with turn.checkout.platform(WORKERS):
        turn.warm_up()
        subject = Subject(turn)
        run = subject.measure(Load(16))
        reasons = subject.reasons([run])
    return {"settled_per_second": run.settled_per_second, "reasons": reasons}


SIXTEEN: Final = Part(
    name="sixteen",
    about="transfers settled a second on 16 connections",
    figures=(
        Figure(
            "settled_per_second",
            "16 connections, uniform transfers",
            "/s",
            2,
            at_least=True,
            is_ratio=True,
        ),
    ),
    measure=measure,
)
