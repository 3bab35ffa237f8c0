"""The growth of tables in docs/scaling.md: what a rate adds, and what a large ledger costs, by the
committed measurement of filled ledgers."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from microfin_loadtest.markdown import table_lines
from microfin_loadtest.results import RESULTS
from microfin_loadtest.trend_line import LARGEST, fit

FILLED: Final = RESULTS.parent / "filled.json"
"""What `make figures` writes to `.local/figures/filled-COMMIT.json`, committed."""

OUTCOMES_PER_VOLUME: Final = 4_000_000
KEPT_DAYS: Final = 400
"""An Idempotency-Key is remembered for so long, and until then a volume is not archived."""

RATES: Final = (10, 100, 500, 2_000)
"""Operations a second of one shard, all day and night."""

_DAY: Final = 86_400
_GIBIBYTE: Final = 2**30

_COLUMNS: Final[Mapping[str, tuple[str, str]]] = {
    "cpu_us_per_operation": ("PostgreSQL's CPU, µs/operation", ".0f"),
    "wal_bytes_per_operation": ("log, bytes/operation", ",.0f"),
    "p99_ms": ("p99, ms", ".0f"),
    "statement_ms": ("statement, ms", ".1f"),
    "operation_ms": ("operation, ms", ".1f"),
    "balance_at_ms": ("balance at a time, ms", ".1f"),
    "audit_entries_per_second": ("full audit, entries/s", ",.0f"),
    "audit_since_seconds": ("audit --since, s", ".1f"),
}

_CARRIED_ON: Final = [key for key in _COLUMNS if key != "audit_entries_per_second"]
"""A rate that falls would be carried on below zero."""

Size = Mapping[str, Any]
"""What `make figures --part filled` noted for one ledger."""


@dataclass(frozen=True)
class Growth:
    """What one operation adds: bytes in the tables with their indexes and in the log, and entries;
    and the entries that a full audit reads in a second."""

    table_bytes: float
    log_bytes: float
    entries: float
    audited_per_second: float


@dataclass(frozen=True)
class Day:
    """What a rate adds to a shard in a day, and what is kept until a volume may be archived."""

    operations: int
    table_gib: float
    log_gib: float
    volumes: float
    kept_gib: float
    kept_volumes: int
    audit_hours: float


def read_filled(file: Path = FILLED) -> dict[str, Any] | None:
    """Return the committed measurement; None if there is none."""
    if not file.exists():
        return None
    measured: dict[str, Any] = json.loads(file.read_text())
    return measured


def growth_of(sizes: Sequence[Size]) -> Growth:
    """Return what an operation adds: from the smallest ledger of `sizes` to the largest."""
    smallest = min(sizes, key=lambda it: int(it["operations"]))
    largest = max(sizes, key=lambda it: int(it["operations"]))
    more = largest["operations"] - smallest["operations"]
    return Growth(
        table_bytes=(largest["tables_gib"] - smallest["tables_gib"]) * _GIBIBYTE / more,
        log_bytes=largest["wal_bytes_per_operation"],
        entries=(largest["audit_entries"] - smallest["audit_entries"]) / more,
        audited_per_second=largest["audit_entries_per_second"],
    )


def day_of(growth: Growth, rate: int) -> Day:
    """Return what `rate` operations a second add to a shard in a day.

    Each entry is taken for an outcome of its own: outcomes that were rejected have no entry.
    """
    operations = rate * _DAY
    table_gib = operations * growth.table_bytes / _GIBIBYTE
    volumes = operations * growth.entries / OUTCOMES_PER_VOLUME
    return Day(
        operations=operations,
        table_gib=table_gib,
        log_gib=operations * growth.log_bytes / _GIBIBYTE,
        volumes=volumes,
        kept_gib=table_gib * KEPT_DAYS,
        kept_volumes=round(volumes * KEPT_DAYS),
        audit_hours=operations * growth.entries * KEPT_DAYS / growth.audited_per_second / 3600,
    )


def growth_model(measured: Mapping[str, Any] | None) -> str:
    """Return the measured ledgers, their trend, and what rates add, as Markdown."""
    if measured is None:
        return "Nothing has been measured yet."
    sizes = measured["sizes"]
    growth = growth_of(sizes)
    rate = measured["money_rate"]
    lines = [
        (
            f"Ledgers of these sizes at `{measured['commit']}`, loaded with {rate} operations/s "
            "(p99 where it says ms):"
        ),
        "",
        *_sizes_table(sizes),
        "",
        (
            f"An operation adds {growth.table_bytes:,.0f} bytes to the tables with their indexes, "
            f"and {growth.entries:.2f} entries. At a rate that lasts day and night, a shard gets:"
        ),
        "",
        *table_lines(
            (
                "operations/s",
                "a day: operations",
                "tables",
                "log",
                "volumes",
                f"after {KEPT_DAYS} days: tables",
                "volumes",
                "full audit",
            ),
            [_rate_row(one, day_of(growth, one)) for one in RATES],
        ),
    ]
    return "\n".join(lines)


def _rate_row(rate: int, day: Day) -> tuple[str, ...]:
    return (
        f"{rate:,}",
        f"{day.operations / 1e6:,.1f} million",
        f"{day.table_gib:,.1f} GiB",
        f"{day.log_gib:,.1f} GiB",
        f"{day.volumes:,.1f}",
        f"{day.kept_gib:,.0f} GiB",
        f"{day.kept_volumes:,}",
        f"{day.audit_hours:,.1f} h",
    )


def _sizes_table(sizes: Sequence[Size]) -> list[str]:
    rows = [
        (f"{size['operations']:,}", f"{size['tables_gib']:,.1f} GiB", *_cells(size))
        for size in sizes
    ]
    trends = {key: fit(sizes, key) for key in _CARRIED_ON}
    carried = {key: trend.at(LARGEST) for key, trend in trends.items() if trend is not None}
    rows.append((f"*{LARGEST:,}, by the trend*", "", *_cells(carried)))
    return table_lines(("operations", "tables", *(name for name, _ in _COLUMNS.values())), rows)


def _cells(values: Mapping[str, Any]) -> list[str]:
    return [
        "" if values.get(key) is None else format(float(values[key]), form)
        for key, (_, form) in _COLUMNS.items()
    ]
