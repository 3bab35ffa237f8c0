"""The command `compare`."""

import json
import sys
import time
from datetime import UTC, datetime
from typing import Annotated

import typer

from microfin_loadtest.compare.bars import draw_bars
from microfin_loadtest.compare.client import Load
from microfin_loadtest.compare.named import find_ledgers
from microfin_loadtest.compare.result import result_of
from microfin_loadtest.compare.run import Request, run_all
from microfin_loadtest.k6 import PROGRAMS, find_k6
from microfin_local.platform import REPOSITORY

_FOLDER = REPOSITORY / ".local" / "compare"
_started = time.monotonic()


def _say(message: str) -> None:
    print(f"{time.monotonic() - _started:6.1f} s  {message}", file=sys.stderr, flush=True)


def compare(
    ledgers: Annotated[
        list[str],
        typer.Argument(help="microfin, or the file of an adapter; =WHERE says where it is."),
    ],
    *,
    seconds: Annotated[int, typer.Option(min=1, help="The length of each run.")] = 10,
    runs: Annotated[int, typer.Option(min=1, help="Runs of each load; the median counts.")] = 3,
    connections: Annotated[
        str, typer.Option(help="Connections, each of which sends one transfer after another.")
    ] = "1,16,64,256",
    hot: Annotated[
        int, typer.Option(min=0, help="Connections that all pay one account; 0 leaves it out.")
    ] = 64,
    accounts: Annotated[int, typer.Option(min=3, help="The number of accounts.")] = 200,
    warm_up: Annotated[int, typer.Option(min=0, help="Seconds before the first run.")] = 5,
) -> None:
    """Compare ledgers that run on this machine: settled transfers a second.

    All get the same load in turn, in a closed loop. What settled is counted in each ledger's own
    database, not from its answers. Progress goes to stderr; the last line is one JSON object. The
    exit code is 1 if the comparison does not count.

    An idle ledger uses CPU too. So compare ledgers alone where that matters, one after another.

    Examples:

      compare microfin

      compare microfin ./blnk.py=http://127.0.0.1:5001 --seconds 30
    """
    loads = [Load(number) for number in numbers(connections)]
    loads += [Load(hot, is_hot=True)] if hot else []
    request = Request(find_ledgers(ledgers), loads, seconds, runs, accounts, warm_up)
    k6 = find_k6(PROGRAMS, _say)
    _FOLDER.mkdir(parents=True, exist_ok=True)
    done = run_all(request, k6, _FOLDER, _say)
    offered = {"seconds": seconds, "number_of_runs": runs, "accounts": accounts}
    result = result_of(done["measured"], done["wrong"], offered)
    picture = _FOLDER / f"{datetime.now(UTC):%Y%m%d-%H%M%S}.svg"
    picture.write_text(draw_bars("Settled transfers/s", result["ledgers"]))
    _say(f"plot: {picture}")
    for reason in result["reasons"]:
        _say(f"does not count: {reason}")
    print(json.dumps(result))
    if not result["valid"]:
        raise typer.Exit(1)


def numbers(text: str) -> list[int]:
    """Return the numbers of a list such as `1,16,64`. Raises BadParameter if it is none."""
    parts = text.replace(",", " ").split()
    if not parts or not all(part.isascii() and part.isdigit() and int(part) for part in parts):
        raise typer.BadParameter(f"{text!r} must be numbers above 0, such as 1,16,64.")
    return [int(part) for part in parts]
