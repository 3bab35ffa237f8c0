"""What a rate adds to the tables: arithmetic that can be followed."""

from typing import Any

import pytest

from microfin_loadtest.table_growth import KEPT_DAYS, Growth, day_of, growth_model, growth_of


def ledger(operations: int, tables_gib: float, entries: int, **more: Any) -> dict[str, Any]:
    return {
        "operations": operations,
        "tables_gib": tables_gib,
        "audit_entries": entries,
        "wal_bytes_per_operation": 1500,
        "audit_entries_per_second": 100_000,
        **more,
    }


SIZES = [
    ledger(0, 0.5, 1_000, wal_bytes_per_operation=1400, audit_entries_per_second=None, p99_ms=10),
    ledger(1_000_000, 1.5, 1_501_000, p99_ms=20),
    ledger(10_000_000, 10.5, 15_001_000, p99_ms=30),
]


def test_an_operation_adds_what_lies_between_the_smallest_and_the_largest_ledger() -> None:
    growth = growth_of(SIZES)
    assert growth.table_bytes == pytest.approx(2**30 / 1e6)
    assert growth.entries == pytest.approx(1.5)
    assert (growth.log_bytes, growth.audited_per_second) == (1500, 100_000)


def test_a_rate_adds_volumes_that_stay_until_they_may_be_archived() -> None:
    growth = Growth(table_bytes=2**20, log_bytes=2**10, entries=2.0, audited_per_second=100_000)
    day = day_of(growth, 100)
    assert day.operations == 8_640_000
    assert day.table_gib == pytest.approx(8_437.5)
    assert day.log_gib == pytest.approx(8.24, abs=0.01)
    assert day.volumes == pytest.approx(4.32)
    assert day.kept_volumes == round(4.32 * KEPT_DAYS)
    assert day.audit_hours == pytest.approx(19.2)


def test_the_model_carries_the_trend_on() -> None:
    lines = growth_model({"commit": "abc", "money_rate": 500, "sizes": SIZES}).splitlines()
    (carried,) = (line for line in lines if "by the trend" in line)
    assert "1,000,000,000" in carried
    assert " 50 |" in carried  # 20 at 10⁶, 30 at 10⁷: ten more for each decade


def test_without_a_measurement_there_is_no_model() -> None:
    assert growth_model(None) == "Nothing has been measured yet."
