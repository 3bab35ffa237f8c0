"""The cost model: only runs that count, and arithmetic that can be followed."""

from typing import Any

from microfin_loadtest.processes import GROUPS
from microfin_loadtest.results import RESULTS, read_results
from microfin_loadtest.scaling import PAGE, Cost, measured_cost, model, page_with_model, plan
from microfin_loadtest.table_growth import read_filled


def run(rate: int, api_seconds: float, **changes: Any) -> dict[str, Any]:
    return {
        "valid": True,
        "script": "mix.js",
        "rate": rate,
        "requests": 10_000,
        "platform": {"batch_limit": 500, "argon2_memory_kib": 1024},
        "cpu_seconds": {**dict.fromkeys(GROUPS, 1.0), "api": api_seconds, "k6": 9.0},
        **changes,
    }


def test_the_highest_rate_counts_and_the_median_of_its_runs() -> None:
    naive = {"batch_limit": 1, "argon2_memory_kib": 1024}
    dear_hash = {"batch_limit": 500, "argon2_memory_kib": 19_456}
    cost = measured_cost(
        [
            run(100, 9.0),
            run(300, 3.0),
            run(300, 8.0),
            run(300, 4.0),
            run(400, 1.0, valid=False),
            run(400, 1.0, platform=naive),
            run(400, 1.0, platform=dear_hash),
            run(400, 1.0, script="money.js"),
        ],
        "mix.js",
    )
    assert cost is not None
    assert (cost.rate, cost.runs) == (300, 3)
    assert cost.milliseconds == {**dict.fromkeys(GROUPS, 0.1), "api": 0.4}


def test_without_a_run_that_counts_there_is_no_cost() -> None:
    assert measured_cost([run(1, 1.0, valid=False)], "mix.js") is None
    assert model([run(1, 1.0, valid=False)]) == "Nothing has been measured yet."


def test_a_plan_has_room_copies_and_whole_shards() -> None:
    milliseconds = {**dict.fromkeys(GROUPS, 0.0), "api": 0.6, "postgres": 0.6, "worker": 0.03}
    planned = plan(Cost("money.js", 1, 1, milliseconds), 100_000)
    assert planned.cores["api"] == 100  # 100,000/s at 0.6 ms are 60 cores' work, at 60 % each
    assert planned.shards == 7  # 100 cores' work on primaries of 16
    assert planned.cores["postgres"] == 300
    assert planned.workers == 7  # 5 cores' work, and a multiple of the shards
    assert planned.machines == 26  # 407 cores


def test_the_page_is_current() -> None:
    page = PAGE.read_text()
    assert page == page_with_model(page, read_results(RESULTS), read_filled()), (
        "Renew it: .venv/bin/python -m microfin_loadtest scaling"
    )
