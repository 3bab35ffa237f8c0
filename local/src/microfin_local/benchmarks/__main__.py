"""`python -m microfin_local.benchmarks`: the figures of the money path, as one JSON object."""

import asyncio
import logging
import sys
import tempfile
from itertools import product
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import msgspec
import structlog
import typer
import uvloop

from microfin_local.benchmarks import commit
from microfin_local.benchmarks.answers import measure_answers, measure_recovery
from microfin_local.benchmarks.metrics_cost import measure_metrics
from microfin_local.configuration import Configuration
from microfin_local.platform import Platform

WORKERS = 4
KINDS: tuple[commit.Kind, ...] = ("deposit", "transfer")
WAYS: tuple[commit.Way, ...] = ("direct", "pooled")

application = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def say(message: str) -> None:
    """Print the run's progress to stderr, apart from the JSON."""
    print(message, file=sys.stderr, flush=True)


async def commit_runs(runs: int, operations: int) -> dict[str, Any]:
    """Measure the commits of deposits and of transfers, each `runs` times."""
    with tempfile.TemporaryDirectory(prefix="microfin-bench-") as folder:
        configuration = Configuration(
            state=Path(folder), components=frozenset({"postgres", "pgbouncer"}), random_ports=True
        )
        results: dict[str, list[dict[str, Any]]] = {
            f"{kind}_{way}": [] for kind in KINDS for way in WAYS
        }
        async with Platform(configuration) as platform:
            for run in range(runs):
                for kind, way in product(KINDS, WAYS):
                    measured = await commit.measure(platform, run, kind, way, operations)
                    results[f"{kind}_{way}"].append(measured)
                    say(f"{kind} {way}, run {run + 1} of {runs}: {measured}")
    return {
        name: {"ratio_median": median(run["ratio"] for run in measured), "runs": measured}
        for name, measured in results.items()
    }


async def answer_runs(runs: int) -> dict[str, Any]:
    """Measure answer times and recovery on the whole platform, each `runs` times."""
    with tempfile.TemporaryDirectory(prefix="microfin-bench-") as folder:
        configuration = Configuration(state=Path(folder), workers=WORKERS, random_ports=True)
        async with Platform(configuration) as platform:
            answers, recoveries = [], []
            for run in range(runs):
                answers.append(await measure_answers(platform, WORKERS))
                say(f"answers run {run + 1} of {runs}: {answers[-1]}")
            for run in range(runs):
                recoveries.append(await measure_recovery(platform, WORKERS))
                say(f"recovery run {run + 1} of {runs}: {recoveries[-1]}")
    return {
        "deposit_p50_ms_median": median(run["deposit_ms"]["p50"] for run in answers),
        "transfer_p50_ms_median": median(run["transfer_ms"]["p50"] for run in answers),
        "recovery_seconds_median": median(run["seconds"] for run in recoveries),
        "answers": answers,
        "recoveries": recoveries,
    }


@application.command()
def main(
    runs: Annotated[int, typer.Option(help="Runs of each figure; the median counts.")] = 3,
    operations: Annotated[int, typer.Option(help="Operations in a commit run.")] = 60_000,
    part: Annotated[
        str, typer.Option(help="What to measure: `commit`, `answers`, `metrics` or `all`.")
    ] = "all",
) -> None:
    """Measure the money path on this machine and print one JSON object; progress goes to stderr."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    figures: dict[str, Any] = {}
    if part in ("commit", "all"):
        figures["commit"] = uvloop.run(commit_runs(runs, operations))
    if part in ("answers", "all"):
        figures["answers"] = asyncio.run(answer_runs(runs))
    if part in ("metrics", "all"):
        figures["metrics"] = uvloop.run(measure_metrics())
    print(msgspec.json.encode(figures).decode())


if __name__ == "__main__":
    application()
