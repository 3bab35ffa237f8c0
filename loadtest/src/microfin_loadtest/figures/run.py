"""Measures parts for two commits in turn, and goes on where an earlier run was interrupted."""

import fcntl
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from microfin_loadtest.errors import LoadImpossible
from microfin_loadtest.figures.checkout import Checkout
from microfin_loadtest.figures.goal import row
from microfin_loadtest.figures.part import SIDES, Part, Settings, Turn
from microfin_loadtest.figures.store import Store


def measure_all(
    parts: Sequence[Part],
    checkouts: Mapping[str, Checkout],
    settings: Settings,
    store: Store,
    k6: Path,
    say: Callable[[str], None],
) -> None:
    """Measure what the store does not have: the commit before and this one take turns."""
    steps = [
        (part, number, side)
        for part in parts
        for number in range(1 if part.repeats_itself else settings.turns)
        for side in part.sides
    ]
    for place, (part, number, side) in enumerate(steps, 1):
        name = f"[{place}/{len(steps)}] {part.name}, {side}, turn {number + 1}"
        if len(store.measured(part.name, side)) > number:
            say(f"{name}: known")
            continue

        def report(message: str, name: str = name) -> None:
            say(f"{name}: {message}")

        report("measuring")
        turn = Turn(checkouts[side], settings, store.notes(part.name, side), k6, report)
        measurement = part.measure(turn)
        store.add(part.name, side, measurement)
        keys = [figure.key for figure in part.figures]
        report(", ".join(f"{key} {measurement.get(key)}" for key in keys))


def result_of(parts: Sequence[Part], store: Store) -> dict[str, Any]:
    """Return the rows of the table, all measurements, and why runs of them do not count."""
    measured = {
        part.name: {side: store.measured(part.name, side) for side in SIDES} for part in parts
    }
    return {
        "rows": [
            row(figure, measured[part.name]["before"], measured[part.name]["after"])
            for part in parts
            for figure in part.figures
        ],
        "reasons": [
            f"{name}, {side}: {reason}"
            for name, sides in measured.items()
            for side, turns in sides.items()
            for one in turns
            for reason in one.get("reasons", ())
        ],
        "measured": measured,
    }


@contextmanager
def alone(file: Path) -> Iterator[None]:
    """Hold the right to measure. Raises LoadImpossible if another process does."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LoadImpossible("`make figures` runs already in this checkout.") from None
        yield
