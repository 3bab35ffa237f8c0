"""The operator's metrics."""

from collections.abc import Callable, Iterable, Iterator
from typing import Final

import msgspec
from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

RECONCILES: Final = Counter(
    "microfin_operator_reconciles", "Passes over a cluster by result.", ["result"]
)
for _result in ("changed", "unchanged", "failed"):
    RECONCILES.labels(_result)

RECONCILE_SECONDS: Final = Histogram(
    "microfin_operator_reconcile_seconds", "Duration of a pass over a cluster."
)
API_REQUESTS: Final = Counter(
    "microfin_operator_api_requests", "Requests to the API server besides watches.", ["method"]
)

API_SILENT_SECONDS: Final = Gauge(
    "microfin_operator_api_silent_seconds",
    "Seconds for which the API server has not answered, 0 while it answers.",
)

PHASES: Final = (
    "Pending",
    "Provisioning",
    "Growing",
    "Rolling",
    "Running",
    "Degraded",
    "Paused",
)


class ClusterFigures(msgspec.Struct, frozen=True):
    """The figures of one cluster."""

    namespace: str
    name: str
    phase: str
    partitions: dict[str, int]
    replicas: dict[str, int]
    lag_records: int
    success_age: float | None


class ClusterCollector(Collector):
    """Reports the clusters that exist now, so that a deleted one leaves no series behind."""

    def __init__(self, figures: Callable[[], Iterable[ClusterFigures]]) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        """Yield one family for each figure."""
        own = ["namespace", "cluster"]
        phase = GaugeMetricFamily(
            "microfin_operator_cluster_phase", "1 for the cluster's phase.", labels=[*own, "phase"]
        )
        partitions = GaugeMetricFamily(
            "microfin_operator_cluster_partitions",
            "Partitions: of the topic, active, desired.",
            labels=[*own, "which"],
        )
        replicas = GaugeMetricFamily(
            "microfin_operator_cluster_replicas", "Workers: all, ready.", labels=[*own, "which"]
        )
        lag = GaugeMetricFamily(
            "microfin_operator_cluster_lag_records", "Commands not decided yet.", labels=own
        )
        age = GaugeMetricFamily(
            "microfin_operator_last_success_age_seconds",
            "Seconds since a pass over the cluster last succeeded.",
            labels=own,
        )
        for it in self._figures():
            names = [it.namespace, it.name]
            for which in PHASES:
                phase.add_metric([*names, which], float(which == it.phase))
            for which, number in it.partitions.items():
                partitions.add_metric([*names, which], number)
            for which, number in it.replicas.items():
                replicas.add_metric([*names, which], number)
            lag.add_metric(names, it.lag_records)
            if it.success_age is not None:
                age.add_metric(names, it.success_age)
        yield from (phase, partitions, replicas, lag, age)


def expose(collector: ClusterCollector) -> Callable[[], None]:
    """Expose a collector's metrics, and return a function that hides them again."""
    REGISTRY.register(collector)
    return lambda: REGISTRY.unregister(collector)
