"""`python -m microfin_local.benchmarks.wake_ups`: what one deposit wakes and waits for.

It needs a running platform (`make start`), root, and `perf`. It prints one JSON object.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import typer

from microfin_local.benchmarks.wake_ups import client as client_module
from microfin_local.benchmarks.wake_ups.critical_path import (
    Part,
    WakeUp,
    critical_path,
    operations_of,
    runs_of,
    wake_ups_of,
)
from microfin_local.benchmarks.wake_ups.threads import threads_of
from microfin_local.benchmarks.wake_ups.trace import read, record, sync_seconds
from microfin_local.endpoints import read_endpoints
from microfin_local.ownership import owner

_SETTLING: Final = 2.0  # seconds, for an idle platform to become idle


def main(
    state: Annotated[Path, typer.Option(help="The platform's folder.")] = Path(".local"),
    seconds: Annotated[float, typer.Option(help="Seconds of each of the two records.")] = 5.0,
) -> None:
    """Count wake-ups, under one connection that deposits and of an idle platform."""
    supervisor, endpoints = owner(state), read_endpoints(state)
    if supervisor is None or endpoints is None:
        raise typer.BadParameter(f"no platform is running in {state}: start it with `make start`")
    port = urlsplit(endpoints.api).port or 80
    with tempfile.TemporaryDirectory(prefix="microfin-wake-ups-") as folder:
        file = Path(folder) / "perf.data"
        deposits = _while_depositing(supervisor, port, seconds, file)
        time.sleep(_SETTLING)
        idle = _while_idle(supervisor, seconds, file)
    print(json.dumps({"deposits": deposits, "idle_per_second": idle}))


def _while_depositing(supervisor: int, port: int, seconds: float, file: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", client_module.__name__, "127.0.0.1", str(port)]
    with subprocess.Popen([*command, str(seconds + 2)], stdout=subprocess.PIPE, text=True) as one:
        if one.stdout is None:
            raise RuntimeError("the client says nothing")
        one.stdout.readline()  # it is warm
        names = threads_of([supervisor, one.pid])
        record(seconds, file)
        took = json.loads(one.stdout.readline())
    events = read(file)
    runs = runs_of(events)
    nginx = {thread for thread, name in names.items() if name == "nginx"}
    times = operations_of(runs.get(one.pid, []), nginx)
    found = [critical_path(runs, names.keys(), one.pid, *time) for time in times]
    operations = [parts for parts in found if parts]
    in_sync: Counter[str | None] = Counter()
    for thread, in_it in sync_seconds(events).items():
        in_sync[names.get(thread)] += in_it  # type: ignore[assignment]
    counted = sum(run.woken is not None and run.woken.by in nginx for run in runs[one.pid])
    return {
        "operations": counted,
        "operations_without_lost_events": len(operations),
        "median_milliseconds_of_the_client": median(took),
        "microseconds": _microseconds(operations, names),
        "microseconds_in_fdatasync": _largest(
            in_sync,
            lambda seconds: round(1_000_000 * seconds / counted, 1),
        ),
        "ways": _ways(operations, names),
        "wake_ups": _wake_ups(wake_ups_of(runs), names, counted),
    }


def _while_idle(supervisor: int, seconds: float, file: Path) -> dict[str, float]:
    names = threads_of([supervisor])
    record(seconds, file)
    woken = Counter(names.get(it.thread) for it in wake_ups_of(runs_of(read(file))))
    return _largest(woken, lambda count: round(count / seconds, 1))


def _microseconds(operations: list[list[Part]], names: Mapping[int, str]) -> dict[str, float]:
    """Return the mean microseconds of an operation by thread and kind; they add up to all."""
    sums: Counter[str] = Counter()
    for part in (part for operation in operations for part in operation):
        sums[f"{names.get(part.thread, 'unknown')}: {part.kind}"] += part.seconds  # type: ignore[assignment]
    return _largest(sums, lambda total: round(1_000_000 * total / len(operations), 1))


def _ways(operations: list[list[Part]], names: Mapping[int, str]) -> list[dict[str, Any]]:
    """Return the commonest orders in which threads woke each other, and how common each is."""
    ways = Counter(
        " > ".join(
            names.get(part.thread, "unknown")
            for part in reversed(operation)
            if part.kind == "runs" and part.begun is not None
        )
        for operation in operations
    )
    return [
        {"way": way, "share": round(count / len(operations), 3)}
        for way, count in ways.most_common(5)
    ]


def _wake_ups(
    wake_ups: list[WakeUp], names: Mapping[int, str], operations: int
) -> dict[str, float]:
    """Return the wake-ups of an operation by who was woken and who woke."""
    woken: Counter[str | None] = Counter(
        f"{names[it.thread]} by {names.get(it.by, 'timer or device')}"
        for it in wake_ups
        if it.thread in names
    )
    return _largest(woken, lambda count: round(count / operations, 2))


def _largest(counts: Mapping[Any, float], shown: Callable[[float], float]) -> dict[str, float]:
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return {name: shown(count) for name, count in ordered if name is not None and shown(count)}


if __name__ == "__main__":
    typer.run(main)
