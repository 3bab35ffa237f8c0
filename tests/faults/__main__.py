"""Command line of the fault suite: `python -m faults run`, `schedule` and `report`."""

import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import msgspec
import typer
import uvloop

from faults import results
from faults.playing import Traffic
from faults.report import add_up, as_markdown
from faults.running import Order, play_all
from faults.schedule import Fault, plan

application = typer.Typer(
    help="""Search for wrong money: clients move it, a nemesis breaks the platform, all is compared.

    \b
    Every round: a thousand clients move money through the HTTP API; one or two faults happen, or
    the platform grows; everything is healed and drained; the ledger is audited and compared with
    what the clients received. The schedule follows from the seed and the round's number alone.

    \b
    Examples:
      make faults SEED=7 ROUNDS=10
      make faults SEED=7 ROUNDS=200 ARGS=--resume     go on where the last run ended
      make faults SEED=7 ROUNDS=1 ARGS='--from-round 41'
      PYTHONPATH=tests .venv/bin/python -m faults schedule --seed 7 --rounds 20
      PYTHONPATH=tests .venv/bin/python -m faults report --markdown tests/faults/report/report.md
    """,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_FOLDER = results.REPOSITORY / ".local" / "faults"

Seed = Annotated[int, typer.Option(help="Which schedule.")]
Rounds = Annotated[int, typer.Option(min=1, help="How many rounds.")]
FromRound = Annotated[int, typer.Option(min=0, help="The number of the first round.")]
Results = Annotated[Path, typer.Option(help="A line of JSON for each round is added here.")]


def _speaker() -> Callable[[str], None]:
    began = time.monotonic()

    def say(message: str) -> None:
        print(f"{time.monotonic() - began:7.1f} s  {message}", file=sys.stderr, flush=True)

    return say


@application.command()
def run(
    *,
    seed: Seed = 1,
    rounds: Rounds = 10,
    from_round: FromRound = 0,
    results_file: Results = _FOLDER / "results.jsonl",
    evidence: Annotated[Path, typer.Option(help="Where a failed round leaves its evidence.")] = (
        _FOLDER / "evidence"
    ),
    resume: Annotated[
        bool, typer.Option("--resume", help="Leave out the rounds that have a result already.")
    ] = False,
    accounts: Annotated[int, typer.Option(help="Accounts, each with a client of its own.")] = 1000,
    rate: Annotated[float, typer.Option(help="Actions that the clients begin a second.")] = 400.0,
    least: Annotated[float, typer.Option(help="Seconds of traffic in a round, at least.")] = 16.0,
    fault: Annotated[
        list[str] | None,
        typer.Option(help="A fault as `schedule` prints it; several are played alternately."),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep every round's evidence.")] = False,
    calm: Annotated[float, typer.Option(help="Seconds of traffic after the last fault.")] = 6.0,
) -> None:
    """Play rounds; say on stderr what happens, and print the report as one line of JSON.

    Exit code 0: nothing was found. 1: something was found; its evidence is in a folder that is
    said. Needs root, to mount a small file system that can be filled up.
    """
    numbers = list(range(from_round, from_round + rounds))
    if resume:
        known = {it.round for it in results.load(results_file) if it.seed == seed}
        numbers = [number for number in numbers if number not in known]
    order = Order(
        seed=seed,
        rounds=numbers,
        results=results_file,
        evidence=evidence,
        accounts=accounts,
        traffic=Traffic(rate, least, calm),
        faults=[msgspec.json.decode(it, type=Fault) for it in fault or ()],
        keep=keep,
    )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        played = runner.run(play_all(order, _speaker()))
    print(msgspec.json.encode(add_up(played)).decode())
    if any(it.findings for it in played):
        raise typer.Exit(1)


@application.command()
def schedule(*, seed: Seed = 1, rounds: Rounds = 10, from_round: FromRound = 0) -> None:
    """Print what would happen in the rounds of a seed."""
    for number in range(from_round, from_round + rounds):
        this = plan(seed, number)
        print(f"{number:4}  {this.partitions} partitions  {this.names}")
        for fault in this.faults:
            print(f"      {msgspec.json.encode(fault).decode()}")


@application.command()
def report(
    *,
    results_file: Results = _FOLDER / "results.jsonl",
    markdown: Annotated[Path | None, typer.Option(help="Write the report for people here.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write the report as JSON here.")] = None,
) -> None:
    """Add up all results of a file, and print the report as one line of JSON."""
    added = add_up(results.load(results_file))
    encoded = msgspec.json.encode(added)
    if markdown is not None:
        markdown.write_text(as_markdown(added))
    if json is not None:
        json.write_bytes(msgspec.json.format(encoded, indent=2) + b"\n")
    print(encoded.decode())


if __name__ == "__main__":
    application()
