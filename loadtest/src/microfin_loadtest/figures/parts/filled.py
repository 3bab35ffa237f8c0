"""What an operation, a look-up and an audit cost as the ledger grows.

One platform is filled to one size after the other. PostgreSQL has memory of its own for a twentieth
of its tables at each.
"""

import json
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, Final

from microfin_loadtest.figures.checkout import FOLDER
from microfin_loadtest.figures.goal import Figure, Measurement
from microfin_loadtest.figures.look_ups import look_up
from microfin_loadtest.figures.part import WORKERS, Part, Turn
from microfin_loadtest.figures.server import Server
from microfin_loadtest.figures.trend import Panel, draw_trend
from microfin_loadtest.trend_line import LARGEST, fit
from microfin_local.endpoints import Endpoints

_SHARE_IN_MEMORY: Final = 1 / 20
_ACCOUNTS: Final = 100_000
_OPERATIONS_AN_ACCOUNT: Final = 10
"""At least: a small past has fewer accounts."""

_WARM_UP_SECONDS: Final = 15
_GIBIBYTE: Final = 2**30
_COST, _LATENCY, _LOOK_UP, _AUDITED, _AUDIT_SINCE = 1.2, 1.5, 20.0, 200_000.0, 10.0

_RUNS: Final = (
    "cpu_us_per_operation",
    "wal_bytes_per_operation",
    "full_pages_per_operation",
    "p50_ms",
    "p99_ms",
    "audit_since_seconds",
)
_LOOK_UPS: Final = {
    "statement": "statement_ms",
    "operation": "operation_ms",
    "balance_at": "balance_at_ms",
}


def measure(turn: Turn) -> Measurement:
    """Fill and measure; each size is noted, so that an interrupted measurement goes on."""
    with turn.checkout.platform(WORKERS) as endpoints:
        turn.warm_up()
        filled = 0
        for size in missing(turn):
            if size > filled:
                turn.say(f"filling to {size:,} operations")
                more = size - filled
                accounts = max(2, min(_ACCOUNTS, more // _OPERATIONS_AN_ACCOUNT))
                made = turn.checkout.fill(more, accounts, turn.settings.outcomes_per_volume)
                turn.say(f"filled in {made['seconds']} s")
                filled = size
            noted = _measure_size(turn, endpoints, size)
            turn.notes.add(noted)
            turn.say(", ".join(f"{key} {value}" for key, value in noted.items()))
    wanted = turn.settings.sizes
    sizes = sorted(
        (one for one in turn.notes.all() if one["operations"] in wanted),
        key=lambda one: int(one["operations"]),
    )
    rate = turn.settings.money_rate
    plot = FOLDER / f"filled-{turn.checkout.commit}.svg"
    title = f"Costs and the ledger's size, {rate} operations/s"
    plot.write_text(draw_trend(title, sizes, panels(sizes)))
    measured = {"commit": turn.checkout.commit, "money_rate": rate, "sizes": sizes}
    plot.with_suffix(".json").write_text(json.dumps(measured, indent=1) + "\n")
    return {**compared(sizes), "plot": str(plot), "sizes": sizes}


def missing(turn: Turn) -> list[int]:
    """Return the sizes that are not noted, the smallest first."""
    known = {one["operations"] for one in turn.notes.all()}
    return [size for size in turn.settings.sizes if size not in known]


def _measure_size(turn: Turn, endpoints: Endpoints, size: int) -> dict[str, Any]:
    state = turn.checkout.state
    server = Server(state, endpoints)
    mebibytes = server.keep_in_memory(_SHARE_IN_MEMORY)
    endpoints = turn.checkout.restart(WORKERS)
    audited = turn.checkout.audit_since(endpoints)
    seconds = min(_WARM_UP_SECONDS, turn.settings.seconds)
    turn.checkout.load("money.js", turn.settings.money_rate, seconds, "--audit-since")
    reports = [_run(turn, server) for _ in range(turn.settings.turns)]
    runs = [figures_of(report) for report in reports]
    found = look_up(endpoints, state / "loadtest-users.json") if size else {}
    reasons = [f"{size:,}: {reason}" for report in reports for reason in report["reasons"]]
    if not audited["ok"]:
        reasons.append(f"{size:,}: The audit found {audited['violations_total']} violations.")
    return {
        "operations": size,
        "tables_gib": round(server.table_bytes() / _GIBIBYTE, 2),
        "shared_buffers_mib": mebibytes,
        **{key: _median(key, runs) for key in _RUNS},
        **{key: found[kind]["p99"] if found else None for kind, key in _LOOK_UPS.items()},
        "audit_seconds": audited["seconds"],
        "audit_entries": audited["checked"]["entries"],
        "audit_entries_per_second": (
            round(audited["checked"]["entries"] / audited["seconds"]) if size else None
        ),
        "look_ups": found,
        "reasons": reasons,
    }


def _run(turn: Turn, server: Server) -> dict[str, Any]:
    """Load the platform; the run begins with a checkpoint, so it has a checkpoint's page images."""
    server.checkpoint()
    rate, seconds = turn.settings.money_rate, turn.settings.seconds
    return turn.checkout.load("money.js", rate, seconds, "--audit-since")


def figures_of(report: Mapping[str, Any]) -> dict[str, float | None]:
    """Return a run's figures; latency is that of the slowest kind of operation."""
    settled = report["settled"]
    latency = report["latency_ms"].values()
    return {
        "cpu_us_per_operation": (
            round(1e6 * report["cpu_seconds"]["postgres"] / settled, 1) if settled else None
        ),
        "wal_bytes_per_operation": report["wal"]["bytes_per_settled"],
        "full_pages_per_operation": report["wal"]["full_pages_per_settled"],
        "p50_ms": max((one["p50"] for one in latency), default=None),
        "p99_ms": max((one["p99"] for one in latency), default=None),
        "audit_since_seconds": report["audit"].get("seconds"),
    }


def _median(key: str, runs: Sequence[Mapping[str, float | None]]) -> float | None:
    values = [run[key] for run in runs]
    known = [value for value in values if value is not None]
    return round(median(known), 4) if known else None


def compared(sizes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the largest ledger's figures: costs against the empty one's, the rest as they are; and
    what the trends are at 10⁹ operations."""
    empty = next((one for one in sizes if not one["operations"]), None)
    largest = max(sizes, key=lambda one: int(one["operations"]))
    keys = [*_RUNS, *_LOOK_UPS.values(), "audit_entries_per_second"]
    trends = {key: fit(sizes, key) for key in keys}
    against = {
        "cpu_ratio": "cpu_us_per_operation",
        "wal_ratio": "wal_bytes_per_operation",
        "p99_ratio": "p99_ms",
    }
    return {
        **{name: _ratio(empty, largest, key) for name, key in against.items()},
        **{key: largest[key] for key in keys[len(_RUNS) - 1 :]},
        "carried_on": {
            key: round(trend.at(LARGEST), 3) for key, trend in trends.items() if trend is not None
        },
        "reasons": [reason for one in sizes for reason in one["reasons"]],
    }


def _ratio(empty: Mapping[str, Any] | None, largest: Mapping[str, Any], key: str) -> float | None:
    if empty is None or empty is largest or not empty[key] or largest[key] is None:
        return None
    return round(float(largest[key]) / float(empty[key]), 3)


def panels(sizes: Sequence[Mapping[str, Any]]) -> list[Panel]:
    """Return the pictures of the trends, with the goals that the empty ledger sets."""
    empty = next((one for one in sizes if not one["operations"]), None)

    def goal(key: str, times: float) -> float | None:
        return None if empty is None or empty[key] is None else float(empty[key]) * times

    return [
        Panel(
            "PostgreSQL's CPU, µs/operation",
            {"cpu": "cpu_us_per_operation"},
            goal("cpu_us_per_operation", _COST),
        ),
        Panel(
            "write-ahead log, bytes/operation",
            {"bytes": "wal_bytes_per_operation"},
            goal("wal_bytes_per_operation", _COST),
        ),
        Panel("operations, p99 in ms", {"p99": "p99_ms"}, goal("p99_ms", _LATENCY)),
        Panel("look-ups, p99 in ms", _LOOK_UPS, _LOOK_UP),
        Panel("full audit, entries/s", {"entries": "audit_entries_per_second"}, _AUDITED),
    ]


FILLED: Final = Part(
    name="filled",
    about="filled ledgers of --sizes: CPU, log and p99 of money.js at --money-rate against the "
    "empty one's, look-ups, audits, and the trend (this commit alone; hours, 20 GB)",
    figures=(
        Figure("cpu_ratio", "filled ledger, PostgreSQL's CPU", "times empty", _COST),
        Figure("wal_ratio", "filled ledger, log per operation", "times empty", _COST),
        Figure("p99_ratio", "filled ledger, p99", "times empty", _LATENCY),
        Figure("statement_ms", "filled ledger, statement p99", "ms", _LOOK_UP),
        Figure("operation_ms", "filled ledger, operation look-up p99", "ms", _LOOK_UP),
        Figure("balance_at_ms", "filled ledger, balance-at p99", "ms", _LOOK_UP),
        Figure(
            "audit_entries_per_second",
            "filled ledger, full audit",
            "entries/s",
            _AUDITED,
            at_least=True,
        ),
        Figure("audit_since_seconds", "filled ledger, audit --since", "s", _AUDIT_SINCE),
    ),
    measure=measure,
    repeats_itself=True,
    sides=("after",),
)
