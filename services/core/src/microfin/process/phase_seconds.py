"""Histograms of the phases of an answer's time (`docs/reference/metrics.md`).

All commands of a batch share most of its phases. A histogram of prometheus_client counts one
observation at a time, each under locks. A histogram of this module counts many equal observations
at once and without a lock: only the event loop's thread may observe and collect.
"""

import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Final

from prometheus_client.metrics_core import HistogramMetricFamily
from prometheus_client.registry import REGISTRY, Collector, CollectorRegistry

BOUNDS: Final = (
    0.0005,
    0.001,
    0.002,
    0.004,
    0.008,
    0.016,
    0.032,
    0.064,
    0.128,
    0.256,
    0.512,
    1.0,
    2.0,
    5.0,
    10.0,
)
"""The upper bounds of the buckets, in seconds; all processes have the same ones."""


class Phase:
    """The histogram of one phase."""

    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.sum = 0.0

    def observe(self, seconds: float, times: int = 1) -> None:
        """Count `times` commands that each took `seconds`."""
        self.counts[bisect_left(BOUNDS, seconds)] += times
        self.sum += seconds * times


class PhaseSeconds(Collector):
    """A histogram with a label `phase`; `metric["queue"]` is the phase of that name."""

    def __init__(
        self,
        name: str,
        documentation: str,
        phases: Sequence[str],
        registry: CollectorRegistry = REGISTRY,
    ) -> None:
        self._name = name
        self._documentation = documentation
        self._labelnames = ("phase",)
        self._phases = {phase: Phase() for phase in phases}
        self._created = time.time()
        registry.register(self)

    def __getitem__(self, phase: str) -> Phase:
        return self._phases[phase]

    def describe(self) -> Iterator[HistogramMetricFamily]:
        """Yield the metric without samples."""
        yield HistogramMetricFamily(self._name, self._documentation, labels=self._labelnames)

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Yield the metric with its current values."""
        for family in self.describe():
            for name, phase in self._phases.items():
                family.add_metric((name,), _buckets(phase), phase.sum)
                family.add_sample(f"{self._name}_created", {"phase": name}, self._created)
            yield family


def _buckets(phase: Phase) -> list[tuple[str, float]]:
    """Return each bound with the number of observations up to it."""
    buckets: list[tuple[str, float]] = []
    total = 0
    for bound, count in zip((*map(str, BOUNDS), "+Inf"), phase.counts, strict=True):
        total += count
        buckets.append((bound, total))
    return buckets


def seconds_until_appended(sent: float, appended: int, acknowledged_after: float) -> float:
    """Return the seconds from the sending of a command until the broker appended it.

    `sent` is a time of our wall clock and `appended` one of the broker's, both in milliseconds
    since the Unix epoch. The broker appended the command between the sending and the
    acknowledgement. So the result is never negative and never more than `acknowledged_after`, even
    if the two clocks disagree. The broker cuts its time to a whole millisecond; the middle of that
    millisecond is right on average.
    """
    return min(max(appended + 0.5 - sent, 0.0) / 1000, acknowledged_after)
