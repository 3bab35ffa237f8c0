"""k6's measurements: reads the output of lib.js's `handleSummary` into figures."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

#: Endpoints whose 200 or 201 is a settled operation and whose 202 is an accepted one.
OPERATIONS: Final = frozenset({"accountGeneration", "deposit", "withdraw", "transfer"})

_ANSWERS = re.compile(r"answers_(\w+)_(\d+)")
_LATENCY = re.compile(r"latency_(\w+)")
_PROBLEM = re.compile(r"problem_(\w+)")
_SLOT = re.compile(r"slot_(\d+)")

Values = Mapping[str, float]


@dataclass(frozen=True)
class Slot:
    """One of the equal time slots of a run; times in milliseconds."""

    answers: int
    p50: float
    p95: float
    p99: float


@dataclass(frozen=True)
class LoadFigures:
    """Figures of one run. `answers` are by endpoint and status (0: no answer came, 999: a status
    that lib.js does not know), `problems` by code, latencies in milliseconds."""

    done: int
    dropped: int
    ended: float
    answers: dict[str, dict[int, int]] = field(default_factory=dict)
    problems: dict[str, int] = field(default_factory=dict)
    latency: dict[str, dict[str, float]] = field(default_factory=dict)
    slots: list[Slot] = field(default_factory=list)

    @property
    def requests(self) -> int:
        """How many requests were sent."""
        return sum(sum(statuses.values()) for statuses in self.answers.values())

    @property
    def settled(self) -> int:
        """How many operations were answered as settled."""
        return self._operations(200) + self._operations(201)

    @property
    def accepted(self) -> int:
        """How many operations were answered as accepted, without their final state."""
        return self._operations(202)

    def _operations(self, status: int) -> int:
        return sum(self.answers.get(endpoint, {}).get(status, 0) for endpoint in OPERATIONS)


def read_figures(summary: Mapping[str, Any]) -> LoadFigures:
    """Return the figures of a summary that lib.js wrote."""
    metrics: Mapping[str, Values] = summary["metrics"]
    slots = {
        int(match[1]): Slot(int(values["count"]), *_percentiles(values))
        for name, values in metrics.items()
        if (match := _SLOT.fullmatch(name))
    }
    empty = Slot(0, 0.0, 0.0, 0.0)
    return LoadFigures(
        done=_count(metrics, "iterations"),
        dropped=_count(metrics, "dropped_iterations"),
        ended=summary["ended"] / 1000,
        answers=_answers(metrics),
        problems=_counts(metrics, _PROBLEM),
        latency={
            match[1]: _latency(values)
            for name, values in metrics.items()
            if (match := _LATENCY.fullmatch(name)) and values["count"]
        },
        slots=[slots.get(number, empty) for number in range(summary["slots"])],
    )


def _answers(metrics: Mapping[str, Values]) -> dict[str, dict[int, int]]:
    answers: dict[str, dict[int, int]] = {}
    for name, values in metrics.items():
        match = _ANSWERS.fullmatch(name)
        if match and values["count"]:
            answers.setdefault(match[1], {})[int(match[2])] = int(values["count"])
    return answers


def _counts(metrics: Mapping[str, Values], pattern: re.Pattern[str]) -> dict[str, int]:
    return {
        match[1]: int(values["count"])
        for name, values in metrics.items()
        if (match := pattern.fullmatch(name)) and values["count"]
    }


def _count(metrics: Mapping[str, Values], name: str) -> int:
    return int(metrics[name]["count"]) if name in metrics else 0


def _percentiles(values: Values) -> tuple[float, float, float]:
    return values["med"], values["p(95)"], values["p(99)"]


def _latency(values: Values) -> dict[str, float]:
    p50, p95, p99 = _percentiles(values)
    figures = {"p50": p50, "p95": p95, "p99": p99, "max": values["max"]}
    return {name: round(value, 2) for name, value in figures.items()}
