"""The result of a comparison: medians, ratios to the first ledger, and whether it counts."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median
from typing import Any

from microfin_loadtest.compare.client import Answered


@dataclass(frozen=True)
class Measured:
    """One run of one load: what the ledger's database settled while the client ran and afterwards,
    how long that took, and what the client saw."""

    load: str
    settled: int
    settled_late: int
    drain_seconds: float
    answered: Answered

    @property
    def settled_per_second(self) -> float:
        """What settled while the client ran, for each of its seconds."""
        return round(self.settled / self.answered.seconds, 1)


def result_of(
    measured: Mapping[str, Sequence[Measured]],
    wrong: Mapping[str, str],
    offered: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the comparison as one object. `offered` are its seconds, runs and accounts."""
    reasons = [
        reason for name, runs in measured.items() for reason in why_invalid(name, runs, wrong[name])
    ]
    ledgers = {name: _by_load(runs) for name, runs in measured.items()}
    first = next(iter(ledgers.values()))
    return {
        "valid": not reasons,
        "reasons": reasons,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        **offered,
        "ledgers": ledgers,
        "ratios": {
            name: {load: _ratio(figures, first[load]) for load, figures in loads.items()}
            for name, loads in ledgers.items()
        },
    }


def why_invalid(name: str, runs: Sequence[Measured], wrong: str) -> list[str]:
    """Return why runs of a ledger do not count; `wrong` is what its audit says."""
    reasons = [f"{name}: {wrong}"] if wrong else []
    for run in runs:
        durable = run.settled + run.settled_late
        if run.answered.settled > durable:
            reasons.append(
                f"{name}, connections {run.load}: {run.answered.settled} were answered as settled, "
                f"its database has only {durable}."
            )
        if not durable:
            reasons.append(f"{name}, connections {run.load}: nothing settled.")
    return reasons


def _by_load(runs: Sequence[Measured]) -> dict[str, Any]:
    loads: dict[str, list[Measured]] = {}
    for run in runs:
        loads.setdefault(run.load, []).append(run)
    return {load: _figures(of_load) for load, of_load in loads.items()}


def _figures(runs: Sequence[Measured]) -> dict[str, Any]:
    latencies = [run.answered.latency_ms for run in runs if run.answered.latency_ms]
    return {
        "settled_per_second": median(run.settled_per_second for run in runs),
        "runs": [run.settled_per_second for run in runs],
        "settled_ms": {
            name: round(median(latency[name] for latency in latencies), 2)
            for name in (latencies[0] if latencies else ())
        },
        "settled_late": sum(run.settled_late for run in runs),
        "drain_seconds": max(run.drain_seconds for run in runs),
        "other_answers": sum(run.answered.other for run in runs),
        "client_cpu_seconds": round(sum(run.answered.cpu_seconds for run in runs), 2),
    }


def _ratio(figures: Mapping[str, Any], first: Mapping[str, Any]) -> float | None:
    if not first["settled_per_second"]:
        return None
    return round(float(figures["settled_per_second"] / first["settled_per_second"]), 2)
