"""Goals, and the table of what was reached."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from microfin_loadtest.markdown import table_lines

_HEAD: Final = ("figure", "goal", "before", "after", "ratio", "reached")

Measurement = Mapping[str, Any]
"""What one turn of a part has measured: values by the figure's key, and the `reasons` for which a
run of it does not count."""


@dataclass(frozen=True)
class Figure:
    """A figure and its goal. `key` is its name in a part's measurements.

    The goal bounds the value of this commit, or where `is_ratio` its ratio to the commit before.
    """

    key: str
    what: str
    unit: str
    bound: float
    at_least: bool = False
    is_ratio: bool = False

    @property
    def goal(self) -> str:
        """The goal in words."""
        sign = "≥" if self.at_least else "≤"
        return f"{sign} {self.bound:g} {'times before' if self.is_ratio else self.unit}".rstrip()

    def is_reached(self, before: float | None, after: float | None) -> bool | None:
        """Return whether the goal is reached; None if a value is missing."""
        value = _ratio(before, after) if self.is_ratio else after
        if value is None:
            return None
        return value >= self.bound if self.at_least else value <= self.bound


def row(
    figure: Figure, before: Sequence[Measurement], after: Sequence[Measurement]
) -> dict[str, Any]:
    """Return a figure's row: both commits' medians, their ratio, and whether it is reached."""
    first, second = _median(figure.key, before), _median(figure.key, after)
    ratio = _ratio(first, second)
    return {
        "figure": figure.what,
        "unit": figure.unit,
        "goal": figure.goal,
        "before": first,
        "after": second,
        "ratio": None if ratio is None else round(ratio, 3),
        "reached": figure.is_reached(first, second),
    }


def _median(key: str, measurements: Sequence[Measurement]) -> float | None:
    values = [one[key] for one in measurements if one.get(key) is not None]
    return round(float(median(values)), 3) if values else None


def _ratio(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None or not before else after / before


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows as a Markdown table."""
    words = {True: "yes", False: "**no**", None: ""}
    cells = [
        (
            one["figure"],
            one["goal"],
            _value(one, "before"),
            _value(one, "after"),
            "" if one["ratio"] is None else format(one["ratio"], ".2f"),
            words[one["reached"]],
        )
        for one in rows
    ]
    return "\n".join(table_lines(_HEAD, cells))


def _value(one: Mapping[str, Any], side: str) -> str:
    return "" if one[side] is None else f"{one[side]:g} {one['unit']}".rstrip()
