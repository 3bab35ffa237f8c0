"""A comparison from beginning to end."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from microfin_loadtest.compare.adapter import Account
from microfin_loadtest.compare.client import Load, send
from microfin_loadtest.compare.named import Named
from microfin_loadtest.compare.result import Measured
from microfin_loadtest.errors import LoadImpossible

WARM_UP: Final = Load(16)
_REST_WITHIN_SECONDS: Final = 120.0
_PAUSE_SECONDS: Final = 1.0

Say = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """What to run: each load for `seconds` on each ledger, `runs` times, after a warm-up."""

    ledgers: Sequence[Named]
    loads: Sequence[Load]
    seconds: int
    runs: int
    accounts: int
    warm_up_seconds: int


def compare(request: Request, k6: Path, folder: Path, say: Say) -> dict[str, list[Measured]]:
    """Make all runs; return them by ledger. Raises LoadImpossible if one cannot be made."""
    prepared = {}
    for named in request.ledgers:
        say(f"{named.name}: preparing {request.accounts} accounts")
        with _answering(named):
            prepared[named.name] = named.ledger.prepare(request.accounts)
        if request.warm_up_seconds:
            say(f"{named.name}: warming up")
            measure(named, prepared[named.name], WARM_UP, request.warm_up_seconds, k6, folder)
    measured: dict[str, list[Measured]] = {named.name: [] for named in request.ledgers}
    for run in range(request.runs):
        for load in request.loads:
            for named in request.ledgers:
                accounts = prepared[named.name]
                one = measure(named, accounts, load, request.seconds, k6, folder)
                measured[named.name].append(one)
                say(
                    f"run {run + 1} of {request.runs}, connections {load.name}, {named.name}: "
                    f"{one.settled_per_second:g} settled/s"
                )
    return measured


def audit_all(ledgers: Sequence[Named], say: Say) -> dict[str, str]:
    """Return what is wrong with each ledger; '' if nothing is."""
    wrong = {}
    for named in ledgers:
        say(f"{named.name}: auditing")
        with _answering(named):
            wrong[named.name] = named.ledger.audit()
    return wrong


def measure(
    named: Named, accounts: Sequence[Account], load: Load, seconds: int, k6: Path, folder: Path
) -> Measured:
    """Make one run. What settled is what the ledger's database has more when the client ends."""
    with _answering(named):
        before = named.ledger.settled()
        transfer = named.ledger.transfer()
    answered = send(k6, folder, accounts, transfer, load, seconds)
    with _answering(named):
        at_end = named.ledger.settled()
        began = time.monotonic()
        at_rest = _wait_for_rest(named, at_end)
    return Measured(
        load=load.name,
        settled=at_end - before,
        settled_late=at_rest - at_end,
        drain_seconds=round(time.monotonic() - began, 1) if at_rest > at_end else 0.0,
        answered=answered,
    )


def _wait_for_rest(named: Named, settled: int) -> int:
    """Return the number of settled transfers when it grows no more."""
    deadline = time.monotonic() + _REST_WITHIN_SECONDS
    while time.monotonic() < deadline:
        time.sleep(_PAUSE_SECONDS)
        now = named.ledger.settled()
        if now == settled:
            return now
        settled = now
    raise LoadImpossible(
        f"{named.name} still settles {_REST_WITHIN_SECONDS:g} s after the client ended: it accepts "
        "more than it settles. Compare it with fewer connections, or for fewer seconds."
    )


@contextmanager
def _answering(named: Named) -> Iterator[None]:
    try:
        yield
    except (httpx.TransportError, ConnectionError, TimeoutError) as error:
        raise LoadImpossible(
            f"{named.name} does not answer ({type(error).__name__}: {error}). Start it, or say "
            f"where it is: {named.name}=WHERE. microfin starts by `make start`."
        ) from error


def run_all(request: Request, k6: Path, folder: Path, say: Say) -> dict[str, Any]:
    """Make all runs and audit; return them with what is wrong with each ledger."""
    measured = compare(request, k6, folder, say)
    return {"measured": measured, "wrong": audit_all(request.ledgers, say)}
