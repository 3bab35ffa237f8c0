"""`python -m simulation`: search for wrong money in simulated schedules, or replay one."""

import json
import sys
from itertools import count
from pathlib import Path
from typing import Annotated

import typer

from simulation.drawing import draw_plan
from simulation.plan import Plan
from simulation.planted_bugs import BUGS
from simulation.product_edges import silenced
from simulation.search import Found, search
from simulation.shrinking import shrink
from simulation.world import Result, run_plan

HELP = """
Run the real decision core, workers, API waiting logic and growth on simulated edges.

Each schedule is drawn from its seed: accounts, clients, partitions, and faults - crashes and pauses
at any turn, lost and repeated replies, commits and records that nobody acknowledged or that come
late, two owners, growths in the middle. Time is virtual, so thousands run in a minute. In the end
faults stop, the logs are drained, and invariants 1 to 8 are checked against a naive
ledger and against what the clients received.

\b
  python -m simulation --seconds 60            search for a minute
  python -m simulation --seed 4711             replay one schedule, and print its history
  python -m simulation --schedules 10000       that many schedules, from seed 0
  python -m simulation --seconds 60 --from 1000000    other seeds
  python -m simulation --bug "no epoch check"  with a planted bug: see how a failure looks

A failing schedule is made smaller (fewer clients, operations and faults) before its history is
printed: one line an event, with the virtual time in seconds, who, and what. The first line of the
history is the plan. The last line of the output is one JSON object. The exit code is 1 where an
invariant was broken.
"""


def main(
    seed: Annotated[int | None, typer.Option(help="Run this schedule only.")] = None,
    schedules: Annotated[int | None, typer.Option(help="How many schedules at most.")] = None,
    seconds: Annotated[float | None, typer.Option(help="For how long, in seconds.")] = None,
    first: Annotated[int, typer.Option("--from", help="The first seed of a search.")] = 0,
    bug: Annotated[
        str, typer.Option(help="Plant this bug: " + ", ".join(b.name for b in BUGS))
    ] = "",
    whole: Annotated[bool, typer.Option(help="Do not make a failing schedule smaller.")] = False,
) -> None:
    """See HELP."""
    if bug and bug not in {it.name for it in BUGS}:
        raise typer.BadParameter(f"There is no such bug. These are: {[it.name for it in BUGS]}")
    if seed is None and schedules is None and seconds is None:
        seconds = 60.0
    planted = next((it for it in BUGS if it.name == bug), None)
    if planted is None:
        found = _run(seed, schedules, seconds, first, whole=whole)
    else:
        with planted.planted():
            found = _run(seed, schedules, seconds, first, whole=whole)
    print(json.dumps(summary(found)))
    sys.exit(1 if found.failures else 0)


def _run(
    seed: int | None, schedules: int | None, seconds: float | None, first: int, *, whole: bool
) -> Found:
    if seed is not None:
        found = search([seed])
    else:
        seeds = count(first) if schedules is None else range(first, first + schedules)
        found = search(seeds, seconds=seconds, progress=_show_progress)
    with silenced():
        if seed is not None and not found.failures:
            _print_history(run_plan(draw_plan(seed)))
        for failed in found.failures:
            _say(f"seed {failed.plan.seed} breaks invariant {failed.violations[0].invariant}")
            if not whole:
                _say("making it smaller, for at most 30 s (--whole does not)")
                failed = shrink(failed)  # noqa: PLW2901 - the smaller one is reported instead
            _print_history(failed)
    return found


def summary(found: Found) -> dict[str, object]:
    """Return what a search came to, for the JSON line."""
    return {
        "schedules": found.schedules,
        "seconds": round(found.seconds, 2),
        "schedules_per_minute": found.per_minute,
        "operations": found.operations,
        "acknowledged": found.acknowledged,
        "growing": found.grown,
        "virtual_seconds": round(found.virtual_seconds),
        "faults": dict(sorted(found.faults.items())),
        "failures": [
            {
                "seed": failed.plan.seed,
                "violations": [str(violation) for violation in failed.violations],
            }
            for failed in found.failures
        ],
    }


def _print_history(result: Result) -> None:
    print(describe(result.plan))
    for line in result.history.lines():
        print(line)
    for violation in result.violations:
        print(violation)


def describe(plan: Plan) -> str:
    """Return a plan in a few lines."""
    accounts = ", ".join(
        f"{it.number} ({'opened later' if it.opened_by else f'{it.balance} {it.currency}'})"
        for it in plan.accounts
    )
    lines = [
        f"seed {plan.seed}: shards {plan.shards}, partitions {plan.partitions}, apis {plan.apis}",
        f"tuning: {plan.tuning}",
        f"accounts: {accounts}",
        *(f"growth: {growth}" for growth in plan.growths),
        *(f"fault: {fault}" for fault in plan.faults),
    ]
    return "\n".join(lines)


def _show_progress(found: Found) -> None:
    print(
        f"{found.schedules} schedules, {found.per_minute} a minute, "
        f"{found.acknowledged} operations acknowledged, {len(found.failures)} failures",
        file=sys.stderr,
    )


def _say(line: str) -> None:
    print(line, file=sys.stderr)


if __name__ == "__main__":
    main.__doc__ = HELP
    application = typer.Typer(
        add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
    )
    application.command(help=HELP)(main)
    application(prog_name=f"python -m {Path(__file__).parent.name}")
