"""The benchmark of the metrics counts what an operation counts."""

import pytest
from prometheus_client import REGISTRY

from microfin_local.benchmarks import metrics_cost
from microfin_local.benchmarks.metrics_cost import BATCHES, measure_metrics

COUNTED = {
    "microfin_api_requests_total": {"method": "POST", "route": "/api/deposit", "status": "200"},
    "microfin_api_request_seconds_count": {"method": "POST", "route": "/api/deposit"},
    "microfin_api_acknowledge_seconds_count": {},
    "microfin_api_operations_total": {"kind": "deposit", "status": "settled"},
    "microfin_api_phase_seconds_count": {"phase": "respond"},
    "microfin_worker_phase_seconds_count": {"phase": "queue"},
    "microfin_worker_batch_size_sum": {},
}


async def test_every_operation_is_counted_and_costs_something(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(metrics_cost, "_OPERATIONS", 500)
    monkeypatch.setattr(metrics_cost, "_REPEATS", 1)

    def counted() -> list[float]:
        return [REGISTRY.get_sample_value(name, it) or 0.0 for name, it in COUNTED.items()]

    before = counted()
    figures = await measure_metrics()
    grown = [after - earlier for after, earlier in zip(counted(), before, strict=True)]
    assert grown == [500] * 5 + [500 * len(BATCHES)] * 2
    assert figures["api_microseconds"] > 0
    assert figures["worker_microseconds_by_batch"].keys() == set(map(str, BATCHES))
