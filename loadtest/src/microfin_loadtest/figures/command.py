"""The command `figures`."""

import json
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Final

import typer

from microfin_loadtest.errors import LoadImpossible
from microfin_loadtest.figures.checkout import FOLDER, checkout_of, this_checkout
from microfin_loadtest.figures.goal import table
from microfin_loadtest.figures.part import MONEY_RATE, SIZES, Part, Settings
from microfin_loadtest.figures.parts import PARTS
from microfin_loadtest.figures.run import alone, measure_all, result_of
from microfin_loadtest.figures.store import Store
from microfin_loadtest.k6 import PROGRAMS, find_k6
from microfin_loadtest.subject import commit
from microfin_local.ownership import owner
from microfin_local.platform import REPOSITORY

_PARTS: Final = "\n\n".join(f"{part.name}: {part.about}" for part in PARTS)
_HELP: Final = f"""Measure the project's figures for this commit and for one before it, in turn.

Prints a table of goal, before, after and reached, and one JSON object as the last line. Progress
goes to stderr, and what the commits' own commands print to .local/figures/COMMIT.log. All parts
take more than an hour. After Ctrl-C, the same command goes on where it was.

The commit before is cloned to .local/figures/COMMIT and set up there. Each commit is loaded by its
own harness, on a new platform for each turn; only one runs at a time. How a commit's platform is
started for the mix is read from its own docs/guide/load-testing.md.

The parts:

{_PARTS}

Examples:

figures e415498

figures e415498 --part latency --part one --seconds 20
"""
_started = time.monotonic()


def _say(message: str) -> None:
    print(f"{time.monotonic() - _started:6.1f} s  {message}", file=sys.stderr, flush=True)


def figures(  # noqa: PLR0913 - each is an option
    before: Annotated[str, typer.Argument(help="The commit to compare with.")],
    *,
    part: Annotated[
        list[str] | None, typer.Option(help="A part to measure, may be repeated; by default all.")
    ] = None,
    seconds: Annotated[int, typer.Option(min=1, help="The length of each run.")] = 60,
    turns: Annotated[int, typer.Option(min=1, help="Turns; the median counts.")] = 3,
    rate: Annotated[
        int, typer.Option(min=1, help="Iterations/s of the mix in `latency` and `workers`.")
    ] = 100,
    first_rate: Annotated[
        int, typer.Option(min=1, help="Iterations/s at which the search of `mix` begins.")
    ] = 100,
    sizes: Annotated[
        str, typer.Option(help="The operations of the ledgers of `filled`, separated by commas.")
    ] = ",".join(map(str, SIZES)),
    money_rate: Annotated[
        int, typer.Option(min=1, help="Operations/s of `filled`: half of what is carried.")
    ] = MONEY_RATE,
    outcomes_per_volume: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="The outcomes of a volume of `filled`. Small ones show what a larger ledger's "
            "number of volumes costs.",
        ),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget what was measured.")] = False,
) -> None:
    """Measure the project's figures; the help is `_HELP`."""
    parts = parts_of(part or [])
    if owner(REPOSITORY / ".local") is not None:
        raise LoadImpossible("A platform is running here and would disturb. Stop it: make stop")
    settings = Settings(
        seconds, rate, first_rate, turns, sizes_of(sizes), money_rate, outcomes_per_volume
    )
    with alone(FOLDER / "measuring"):
        k6 = find_k6(PROGRAMS, _say)
        _say(f"setting {before} up")
        checkouts = {
            "before": checkout_of(before, k6.parent),
            "after": this_checkout(commit(), k6.parent),
        }
        for checkout in checkouts.values():
            checkout.stop()  # A run that was killed may have left its platform.
        commits = {side: checkout.commit for side, checkout in checkouts.items()}
        file = FOLDER / f"{commits['before']}-{commits['after']}.json"
        if fresh:
            file.unlink(missing_ok=True)
        store = Store(file, {**commits, **asdict(settings)})
        measure_all(parts, checkouts, settings, store, k6, _say)
    result = result_of(parts, store)
    print(table(result["rows"]) + "\n")
    for reason in result["reasons"]:
        _say(f"does not count: {reason}")
    now = datetime.now(UTC).isoformat(timespec="seconds")
    print(json.dumps({"date": now, **commits, **asdict(settings), **result}))


figures.__doc__ = _HELP


def sizes_of(text: str) -> tuple[int, ...]:
    """Return sizes in their order. Raises LoadImpossible for what is none."""
    words = text.split(",")
    if not all(word.strip().isdecimal() for word in words):
        raise LoadImpossible(f"--sizes is {text}; write it like 0,30000,100000.")
    return tuple(sorted({int(word) for word in words}))


def parts_of(names: list[str]) -> list[Part]:
    """Return the parts of these names, all if there is none. Raises LoadImpossible for another."""
    known = {part.name: part for part in PARTS}
    if unknown := [name for name in names if name not in known]:
        raise LoadImpossible(
            f"There is no part called {', '.join(unknown)}; there are: {', '.join(known)}."
        )
    return [part for part in PARTS if not names or part.name in names]
