"""Phases of a run, from what processes expose."""

from collections import defaultdict

import pytest
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from microfin.process.phase_seconds import PhaseSeconds
from microfin_api import metrics as api_metrics
from microfin_loadtest.phases import PHASES, Totals, phases_between, read_totals
from microfin_worker import metrics as worker_metrics

API_PHASES = {"admit": 0.001, "produce": 0.003, "wait": 0.040, "respond": 0.002}
WORKER_PHASES = {"queue": 0.010, "apply": 0.001, "commit": 0.020, "notify": 0.004, "produce": 0.005}


def api(answered: int, *, others: int = 0) -> Totals:
    """Return an API process's totals after answered commands, and `others` without an outcome."""
    registry = CollectorRegistry()
    requests = Histogram(
        "microfin_api_request_seconds", "Text.", ["method", "route"], registry=registry
    )
    phases = PhaseSeconds("microfin_api_phase_seconds", "Text.", tuple(API_PHASES), registry)
    for phase, seconds in API_PHASES.items():
        phases[phase].observe(seconds, answered)
    for route in ("/api/deposit", "/api/transfer"):
        for _ in range(answered // 2):
            requests.labels("POST", route).observe(sum(API_PHASES.values()))
    for _ in range(others):
        requests.labels("POST", "/api/deposit").observe(0.001)
    requests.labels("GET", "/api/accounts").observe(9.0)
    requests.labels("POST", "/api/signin").observe(9.0)
    return read_totals(generate_latest(registry).decode())


def worker(commands: int) -> Totals:
    registry = CollectorRegistry()
    phases = PhaseSeconds("microfin_worker_phase_seconds", "Text.", tuple(WORKER_PHASES), registry)
    for phase, seconds in WORKER_PHASES.items():
        phases[phase].observe(seconds, commands)
    return read_totals(generate_latest(registry).decode())


def test_what_the_phases_add_up_to_against_the_time_of_the_answers() -> None:
    before = {"http://api": api(10), "http://worker-0": worker(6), "http://worker-1": worker(4)}
    after = {"http://api": api(110), "http://worker-0": worker(76), "http://worker-1": worker(34)}
    section = phases_between(before, after)
    assert section == {
        "answers": 100,
        "answered_with_outcome": 100,
        "legs": 1.0,
        "answer_ms": 46.0,
        "phases_ms": {
            "admit": 1.0,
            "produce": 8.0,
            "queue": 10.0,
            "apply": 1.0,
            "commit": 20.0,
            "notify": 4.0,
            "respond": 2.0,
        },
        "sum_ms": 46.0,
        "ratio": 1.0,
        "wait_ms": 40.0,
    }


def test_a_process_that_came_or_started_again_counts_from_its_start() -> None:
    before = {"http://api": api(10), "http://worker-0": worker(50)}
    after = {"http://api": api(20), "http://worker-0": worker(6), "http://worker-1": worker(4)}
    section = phases_between(before, after)
    assert section is not None
    assert section["legs"] == 1.0
    assert section["phases_ms"]["commit"] == 20.0


def test_requests_that_were_not_answered_with_an_outcome_are_counted_apart() -> None:
    section = phases_between({"http://api": api(10)}, {"http://api": api(20, others=30)})
    assert section is not None
    assert (section["answers"], section["answered_with_outcome"]) == (40, 10)


@pytest.mark.parametrize("before", [None, {}])
def test_without_answers_or_a_scrape_there_is_nothing_to_report(
    before: dict[str, Totals] | None,
) -> None:
    assert phases_between(before, {"http://api": defaultdict(float)}) is None
    assert phases_between({}, None) is None


def test_the_product_has_the_phases_that_are_added_up() -> None:
    api_phases = {name for name in (*PHASES, "wait") if _has(api_metrics.PHASE_SECONDS, name)}
    worker_phases = {name for name in PHASES if _has(worker_metrics.PHASE_SECONDS, name)}
    assert api_phases == set(API_PHASES)
    assert worker_phases == set(WORKER_PHASES)
    assert api_phases | worker_phases == {*PHASES, "wait"}


def _has(metric: PhaseSeconds, phase: str) -> bool:
    samples = next(iter(metric.collect())).samples
    return phase in {sample.labels["phase"] for sample in samples}
