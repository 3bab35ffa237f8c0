"""The product as it is breaks no invariant in simulated schedules; a failing seed can be read."""

import hashlib
import os
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest

from microfin_worker.metrics import FAILURES
from simulation.drawing import draw_plan
from simulation.planted_bugs import BUGS, PlantedBug
from simulation.product_edges import silenced
from simulation.search import search
from simulation.shrinking import shrink
from simulation.statements import UnknownStatement, statement
from simulation.world import run_plan

SECONDS = 60.0
TESTS = Path(__file__).parents[1]


@pytest.mark.long
@pytest.mark.timeout(600)
def test_the_product_breaks_no_invariant() -> None:
    before = failures_of_workers()
    found = search(count(), seconds=SECONDS)
    assert not found.failures, (
        f"seed {found.failures[0].plan.seed}: {found.failures[0].violations[0]}\n"
        f"Read it: make simulate SEED={found.failures[0].plan.seed}"
    )
    # What was never there cannot have gone wrong.
    assert found.schedules > 100
    assert found.acknowledged > found.schedules
    assert found.grown > 10
    for fault in ("Crash", "Pause", "SecondOwner", "DatabaseRestart", "SlowProduce"):
        assert found.faults[fault] > 0, fault
    for what in ("LostStatement", "LostProduce"):
        for outcome in ("lost before", "lost after", "late", "hung"):
            assert found.faults[f"{what} {outcome}"] > 0, (what, outcome)
    # A worker survives its own mistakes, which would hide the fault that was meant.
    mistakes = {"AttributeError", "NameError", "TypeError", "ValueError"}
    assert not (failures_of_workers() - before) & mistakes


def failures_of_workers() -> set[str]:
    """Return the names of the errors after which workers of this process claimed anew."""
    samples = (sample for metric in FAILURES.collect() for sample in metric.samples)
    return {sample.labels["error"] for sample in samples if sample.name.endswith("_total")}


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_is_found(bug: PlantedBug) -> None:
    with bug.planted():
        found = search(count(), seconds=SECONDS)
    assert found.failures, f"not found in {found.schedules} schedules"
    broken = {violation.invariant for violation in found.failures[0].violations}
    assert broken & set(bug.invariants), found.failures[0].violations


def test_a_failing_schedule_is_made_smaller() -> None:
    bug = next(bug for bug in BUGS if bug.name == "repeat inside one batch")
    with bug.planted():
        failed = search(count(), seconds=SECONDS).failures[0]
        with silenced():
            smaller = shrink(failed)
    assert smaller.violations[0].invariant == failed.violations[0].invariant
    assert sum(len(client.steps) for client in smaller.plan.clients) <= 3
    assert len(smaller.plan.faults) <= 1
    assert smaller.plan.growths == []
    lines = list(smaller.history.lines())
    assert len(lines) <= 25, lines
    assert any("client-" in line and "asks api-" in line for line in lines)


def digest_of(seeds: range, hash_seed: str) -> str:
    program = (
        "from simulation.test_simulation import print_histories;"
        f"print_histories(range({seeds.start}, {seeds.stop}))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(TESTS)},
        capture_output=True,
        check=True,
    )
    return hashlib.sha256(run.stdout).hexdigest()


def print_histories(seeds: range) -> None:
    with silenced():
        for seed in seeds:
            for line in run_plan(draw_plan(seed)).history.lines():
                print(line)


@pytest.mark.long
def test_a_seed_is_always_the_same_schedule() -> None:
    seeds = range(40)
    assert digest_of(seeds, "1") == digest_of(seeds, "2")


def test_a_statement_that_has_changed_is_not_mistaken_for_the_old_one() -> None:
    with pytest.raises(UnknownStatement, match=r"statements\.py"):
        statement("SELECT generation FROM routing")


def test_the_command_teaches() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "simulation", "--help"],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "replay one schedule" in run.stdout
