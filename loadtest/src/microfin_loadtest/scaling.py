"""The cost model of docs/scaling.md: the machines that a rate needs, by measured CPU."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from microfin_loadtest.markdown import table_lines
from microfin_loadtest.processes import GROUPS
from microfin_loadtest.results import RESULTS, read_results
from microfin_loadtest.scripts import FOLDER
from microfin_loadtest.table_growth import growth_model, read_filled

PAGE: Final = FOLDER.parent / "docs" / "scaling.md"
_BEGIN: Final = "<!-- model: made by `python -m microfin_loadtest scaling` -->"
_END: Final = "<!-- end of model -->"
_TABLES_BEGIN: Final = "<!-- tables: made by `python -m microfin_loadtest scaling` -->"
_TABLES_END: Final = "<!-- end of tables -->"

UTILISATION: Final = 0.6
"""The share of a core that the plan uses; the rest is for peaks and for lost machines."""

COPIES: Final = {"postgres": 3, "kafka": 3, "redis": 2}
"""Instances of a component with the same data. Each is assumed to cost as much as the first."""

SHARD_CORES: Final = 16
"""Cores of one shard's primary; more load needs another shard."""

MACHINE_CORES: Final = 16

TARGETS: Final[tuple[tuple[str, str, int], ...]] = (
    ("3,626 requests/s of the mix", "mix.js", 3_626),
    ("10,000 operations/s", "money.js", 10_000),
    ("100,000 operations/s", "money.js", 100_000),
    ("1,000,000 operations/s", "money.js", 1_000_000),
)


@dataclass(frozen=True)
class Cost:
    """CPU milliseconds per request and group of processes, as measured at a rate of a script."""

    script: str
    rate: int
    runs: int
    milliseconds: dict[str, float]


@dataclass(frozen=True)
class Plan:
    """The needs of a rate: cores by group with all copies, workers, shards, and machines."""

    cores: dict[str, int]
    workers: int
    shards: int
    machines: int


def measured_cost(reports: Sequence[dict[str, Any]], script: str) -> Cost | None:
    """Return the medians over the valid runs of a script at its highest rate; None without any.

    Runs in naive mode do not count, nor do runs with another hash cost than the comparison's.
    """
    valid = [report for report in reports if report["valid"] and report["script"] == script]
    valid = [
        report
        for report in valid
        if report["platform"]["batch_limit"] > 1 and report["platform"]["argon2_memory_kib"] == 1024
    ]
    if not valid:
        return None
    rate = max(report["rate"] for report in valid)
    runs = [report for report in valid if report["rate"] == rate]
    return Cost(
        script,
        rate,
        len(runs),
        {
            group: median(1000 * run["cpu_seconds"][group] / run["requests"] for run in runs)
            for group in GROUPS
        },
    )


def plan(cost: Cost, rate: int) -> Plan:
    """Return the plan for `rate` requests or operations per second at this cost.

    A worker is one process and can use one core, so there is one worker for each core that the
    workers need. The number of partitions is a multiple of the shards.
    """
    one_copy = {
        group: rate * milliseconds / 1000 / UTILISATION
        for group, milliseconds in cost.milliseconds.items()
    }
    shards = max(1, math.ceil(one_copy["postgres"] / SHARD_CORES))
    workers = math.ceil(max(1, math.ceil(one_copy["worker"])) / shards) * shards
    cores = {group: math.ceil(used * COPIES.get(group, 1)) for group, used in one_copy.items()}
    cores["worker"] = workers
    return Plan(cores, workers, shards, math.ceil(sum(cores.values()) / MACHINE_CORES))


def model(reports: Sequence[dict[str, Any]]) -> str:
    """Return the measured costs and the plans as Markdown."""
    costs = {
        script: cost
        for script in ("mix.js", "money.js")
        if (cost := measured_cost(reports, script)) is not None
    }
    if not costs:
        return "Nothing has been measured yet."
    lines = ["CPU milliseconds per request, measured:", ""]
    lines += table_lines(
        ("script", "rate", "runs", *GROUPS, "all"),
        [
            (
                f"`{cost.script}`",
                f"{cost.rate}/s",
                str(cost.runs),
                *(f"{cost.milliseconds[group]:.3f}" for group in GROUPS),
                f"{sum(cost.milliseconds.values()):.3f}",
            )
            for cost in costs.values()
        ],
    )
    lines += ["", f"Cores at {UTILISATION:.0%} of each, with all copies:", ""]
    rows = [
        _plan_row(name, plan(costs[script], rate))
        for name, script, rate in TARGETS
        if script in costs
    ]
    others = [group for group in GROUPS if group != "worker"]
    head = ("for", "workers = partitions", "shards", *others, f"machines of {MACHINE_CORES} cores")
    return "\n".join(lines + table_lines(head, rows))


def _plan_row(name: str, planned: Plan) -> tuple[str, ...]:
    cores = [planned.cores[group] for group in GROUPS if group != "worker"]
    numbers = (planned.workers, planned.shards, *cores, planned.machines)
    return name, *(f"{number:,}" for number in numbers)


def page_with_model(
    page: str, reports: Sequence[dict[str, Any]], filled: Mapping[str, Any] | None
) -> str:
    """Return the page with new models of cores and of tables; the text around them stays."""
    page = _renewed(page, _BEGIN, _END, model(reports))
    return _renewed(page, _TABLES_BEGIN, _TABLES_END, growth_model(filled))


def _renewed(page: str, begin: str, end: str, text: str) -> str:
    before, _, rest = page.partition(begin)
    after = rest.partition(end)[2]
    return f"{before}{begin}\n\n{text}\n\n{end}{after}"


def renew_model() -> None:
    """Write the models of the committed measurements into docs/scaling.md."""
    PAGE.write_text(page_with_model(PAGE.read_text(), read_results(RESULTS), read_filled()))
