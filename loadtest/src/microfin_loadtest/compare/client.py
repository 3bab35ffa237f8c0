"""The client of a comparison: one run of compare.js by k6."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from microfin_loadtest.compare.adapter import Account, Transfer, plan_of
from microfin_loadtest.k6 import K6Run
from microfin_loadtest.scripts import FOLDER
from microfin_local.files import PRIVATE, write_atomically

_SCRIPT: Final = FOLDER / "compare.js"


@dataclass(frozen=True)
class Load:
    """How transfers are sent: on how many connections, and whether all pay one account."""

    connections: int
    is_hot: bool = False

    @property
    def name(self) -> str:
        """The load's name in the result: `64`, or `64 hot`."""
        return f"{self.connections} hot" if self.is_hot else str(self.connections)


@dataclass(frozen=True)
class Answered:
    """What the client saw: answers that said settled, and others; their milliseconds; the length of
    the run; the client's CPU seconds."""

    settled: int
    other: int
    latency_ms: Mapping[str, float]
    seconds: float
    cpu_seconds: float


def send(
    k6: Path,
    folder: Path,
    accounts: Sequence[Account],
    transfer: Transfer,
    load: Load,
    seconds: int,
) -> Answered:
    """Send transfers for some seconds. Raises LoadImpossible if k6 cannot."""
    plan = folder / "compare-plan.json"
    run = f"{datetime.now(UTC):%Y%m%d%H%M%S%f}"
    # The plan has what signs the requests.
    write_atomically(plan, json.dumps(plan_of(accounts, transfer, run)), PRIVATE)
    variables = {
        "PLAN": str(plan),
        "CONNECTIONS": str(load.connections),
        "DURATION": f"{seconds}s",
        "HOT": "1" if load.is_hot else "0",
    }
    running = K6Run(k6, _SCRIPT, folder / "compare-summary.json", variables)
    try:
        summary, cpu_seconds = running.wait()
    finally:
        running.stop()
        plan.unlink(missing_ok=True)
    return read_answered(summary, cpu_seconds)


def read_answered(summary: Mapping[str, Any], cpu_seconds: float) -> Answered:
    """Return what compare.js has written into its summary."""
    metrics = summary["metrics"]
    latency = metrics.get("latency") or {}
    return Answered(
        settled=int(metrics.get("settled", {}).get("count", 0)),
        other=int(metrics.get("other", {}).get("count", 0)),
        latency_ms={
            name: round(latency[key], 2)
            for name, key in (("p50", "med"), ("p99", "p(99)"), ("max", "max"))
            if latency.get("count")
        },
        seconds=summary["milliseconds"] / 1000,
        cpu_seconds=cpu_seconds,
    )
