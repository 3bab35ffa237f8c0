"""Some program exports every metric that an alert or a dashboard names.

microfin's own metrics are compared with those that its processes register. Those of other
components are in the table "Metrics of other components" of docs/reference/metrics.md;
`tests/redis_keeper/test_redis_metrics.py` and `tests/e2e/undisturbed/test_metrics.py` look for
them in scrapes of the real components.
"""

import importlib

import pytest
from prometheus_client import REGISTRY, Metric

from microfin_operator.metrics import ClusterCollector, ClusterFigures
from observability.shipped import (
    expressions,
    metrics_in,
    metrics_of_others,
    played_series,
    selections,
    used_metrics,
)

_SUFFIXES = {
    "counter": ("_total",),
    "gauge": ("",),
    "histogram": ("_bucket", "_sum", "_count"),
    "info": ("_info",),
}
_CLUSTER = ClusterFigures("bank", "microfin", "Running", {"active": 3}, {"ready": 3}, 0, 1.0)


# What Prometheus adds to every series of a pod.
_TARGET = {"namespace", "pod", "job", "microfin_part"}


def own_metrics() -> dict[str, set[str]]:
    """Return the names under which our processes report what they have registered; their labels."""
    for module in (
        "microfin.process.renewed_tls",
        "microfin.process.silence",
        "microfin.redis.state",
        "microfin_worker.metrics",
        "microfin_api.metrics",
        "microfin_operator.metrics",
    ):
        importlib.import_module(module)
    families: list[tuple[Metric, set[str]]] = [
        (family, set(getattr(collector, "_labelnames", ())))
        for collector in REGISTRY._collector_to_names
        for family in (getattr(collector, "describe", list)() or collector.collect())
    ]
    families += [
        (family, set(family.samples[0].labels))
        for family in ClusterCollector(lambda: [_CLUSTER]).collect()
    ]
    return {
        family.name + suffix: labels
        for family, labels in families
        for suffix in _SUFFIXES[family.type]
    }


def test_own_metrics_are_registered() -> None:
    own = own_metrics()
    assert {"microfin_worker_ready", "process_cpu_seconds_total"} <= own.keys()
    mentioned = {it for it in used_metrics() if it.startswith(("microfin_", "process_"))}
    assert mentioned <= own.keys()
    assert len(mentioned) > 30


def test_own_metrics_have_the_labels_by_which_they_are_chosen() -> None:
    own = own_metrics()
    chosen = [it for text in (*expressions(), *played_series()) for it in selections(text)]
    ours = [(name, labels) for name, labels in chosen if name in own]
    assert len(ours) > 60
    for name, labels in ours:
        assert labels <= own[name] | _TARGET, name


def test_other_metrics_are_in_the_table_and_the_table_holds_no_others() -> None:
    assert set(metrics_of_others()) == used_metrics() - own_metrics().keys()


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ('sum by (le, pod) (rate(a_bucket{x="b_total"}[5m])) / 1e6', {"a_bucket"}),
        ("a - time() < 14 * 86400 and on (namespace) up", {"a", "up"}),
        ('label_replace(a, "b", "$1", "c", "(.+)") or vector(0)', {"a"}),
        ('label_values(a{b="c"}, namespace)', {"a"}),
    ],
)
def test_how_names_are_found(expression: str, names: set[str]) -> None:
    assert metrics_in(expression) == names
