"""The figures of filled ledgers: what is compared, the trend, and what the server says."""

import asyncio
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID
from xml.etree import ElementTree

import asyncpg
import pytest

from microfin_loadtest.errors import LoadImpossible
from microfin_loadtest.figures.checkout import Checkout
from microfin_loadtest.figures.command import sizes_of
from microfin_loadtest.figures.look_ups import percentiles, requests_into_past
from microfin_loadtest.figures.part import Settings, Turn
from microfin_loadtest.figures.parts.filled import FILLED, compared, figures_of, missing, panels
from microfin_loadtest.figures.server import Server
from microfin_loadtest.figures.store import Store
from microfin_loadtest.figures.trend import Panel, draw_trend
from microfin_loadtest.history.make import HistoryRequest, make_history
from microfin_loadtest.trend_line import LARGEST, fit
from microfin_loadtest.write_ahead_log import Written, wal_figures, written
from microfin_local.platform import Platform
from support.ledger_history import PARTITIONS
from support.postgres_ledger import PostgresLedger, make_ledger_databases

REPORT: dict[str, Any] = {
    "settled": 1_000,
    "cpu_seconds": {"postgres": 0.25, "k6": 9},
    "wal": {"bytes_per_settled": 1_500, "full_pages_per_settled": 0.2},
    "latency_ms": {"deposit": {"p50": 5, "p99": 9}, "transfer": {"p50": 8, "p99": 20}},
    "audit": {"ok": True, "seconds": 1.5},
    "reasons": [],
}


def size(operations: int, times: float = 1.0) -> dict[str, Any]:
    """Return what was measured at a size, where everything is `times` as much."""
    figures = {key: value and value * times for key, value in figures_of(REPORT).items()}
    look_ups = {"statement_ms": 4 * times, "operation_ms": 5 * times, "balance_at_ms": 6 * times}
    audit = {"audit_entries_per_second": 300_000 / times}
    empty = {**dict.fromkeys(look_ups), "audit_entries_per_second": None}
    found = {**look_ups, **audit} if operations else empty
    return {"operations": operations, **figures, **found, "reasons": []}


def test_a_run_says_what_an_operation_costs() -> None:
    assert figures_of(REPORT) == {
        "cpu_us_per_operation": 250,
        "wal_bytes_per_operation": 1_500,
        "full_pages_per_operation": 0.2,
        "p50_ms": 8,
        "p99_ms": 20,
        "audit_since_seconds": 1.5,
    }


def test_a_run_in_which_nothing_settled_has_no_figures() -> None:
    wal = wal_figures(Written(10, 1), 0)
    nothing = {**REPORT, "settled": 0, "latency_ms": {}, "wal": wal, "audit": {"ok": False}}
    assert set(figures_of(nothing).values()) == {None}


def test_the_largest_ledger_is_compared_with_the_empty_one() -> None:
    result = compared([size(0), size(1_000, 1.1), size(10_000, 1.3)])
    assert (result["cpu_ratio"], result["wal_ratio"], result["p99_ratio"]) == (1.3, 1.3, 1.3)
    assert result["statement_ms"] == pytest.approx(5.2)
    assert result["audit_since_seconds"] == pytest.approx(1.95)
    assert {figure.key for figure in FILLED.figures} <= set(result)
    assert result["carried_on"]["statement_ms"] == pytest.approx(5.2 + 5 * 0.8)


@pytest.mark.parametrize("sizes", [[size(0)], [size(1_000)], [size(1_000), size(2_000)]])
def test_without_an_empty_and_a_filled_ledger_nothing_is_compared(
    sizes: list[dict[str, Any]],
) -> None:
    result = compared(sizes)
    assert (result["cpu_ratio"], result["wal_ratio"], result["p99_ratio"]) == (None, None, None)


def test_a_trend_grows_with_the_logarithm() -> None:
    line = fit([size(0), size(1_000, 1), size(10_000, 2), size(100_000, 3)], "statement_ms")
    assert line is not None
    assert line.at(1_000) == pytest.approx(4)
    assert line.at(LARGEST) == pytest.approx(28)
    assert fit([size(0), size(1_000)], "statement_ms") is None


def test_the_trend_is_drawn_up_to_the_largest_ledger() -> None:
    sizes = [size(0), size(1_000, 1), size(10_000, 2)]
    picture = ElementTree.fromstring(  # noqa: S314 - it is ours
        draw_trend("Title", sizes, panels(sizes))
    )
    tags = [element.tag.rpartition("}")[2] for element in picture.iter()]
    # Three figures of an empty and two filled ledgers; three look-ups and an audit of two.
    assert tags.count("circle") == 3 * 3 + 4 * 2
    words = {element.text for element in picture.iter()}
    assert {"Title", "empty", "1,000", "1,000,000,000", "goal"} <= words
    places = [float(it.attrib["cx"]) for it in picture.iter() if "cx" in it.attrib]
    assert places[:3] == sorted(places[:3])


@pytest.mark.parametrize("sizes", [[size(0)], [size(1_000)], []])
def test_a_trend_of_few_sizes_is_drawn_as_well(sizes: list[dict[str, Any]]) -> None:
    assert "svg" in draw_trend("Title", sizes, [Panel("x", {"a": "p99_ms"}, None)])


def test_sizes_that_were_measured_are_not_measured_again(tmp_path: Path) -> None:
    nowhere = Path("/nowhere")
    store = Store(tmp_path / "file", {})
    store.notes("filled", "after").add(size(1_000))
    turn = Turn(
        Checkout("a", nowhere, nowhere, nowhere),
        Settings(1, 1, 1, 1, sizes=(0, 1_000, 2_000)),
        store.notes("filled", "after"),
        nowhere,
        lambda _: None,
    )
    assert missing(turn) == [0, 2_000]
    assert missing(replace(turn, settings=Settings(1, 1, 1, 1, sizes=(1_000,)))) == []


def test_sizes_are_numbers_in_their_order() -> None:
    assert sizes_of("100, 0,30") == (0, 30, 100)
    with pytest.raises(LoadImpossible, match="--sizes"):
        sizes_of("3M")


def test_settings_with_sizes_are_the_same_when_they_are_read_again(tmp_path: Path) -> None:
    subject = {"sizes": (0, 30)}
    Store(tmp_path / "file", subject).add("it", "after", {"rate": 1})
    assert Store(tmp_path / "file", subject).measured("it", "after") == [{"rate": 1}]


def test_percentiles() -> None:
    assert percentiles([float(number) for number in range(101)]) == {"p50": 50, "p99": 99}


async def test_what_was_written_to_the_log_is_counted(platform: Platform) -> None:
    await platform.create_database("write_ahead")
    url = platform.postgres_direct(0, database="write_ahead")
    before = await written([url])
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE TABLE t AS SELECT generate_series(1, 10000) AS n")
    await connection.close()
    more = (await written([url])).since(before)
    assert more.bytes > 10_000 * 30
    assert wal_figures(more, 10)["bytes_per_settled"] == round(more.bytes / 10)


async def test_owners_look_up_what_is_theirs(platform: Platform) -> None:
    databases = await make_ledger_databases(platform, "past_looked_up", 1, PARTITIONS)
    url = platform.postgres_direct(0, database=databases[0])
    with pytest.raises(LoadImpossible, match="no past"):
        await requests_into_past(url, "anne@example.net", Random(1))
    worker = platform.postgres_direct(0, "microfin_worker", databases[0])
    async with PostgresLedger([worker], PARTITIONS):
        pass
    await make_history(
        [url], HistoryRequest(operations=2_000, accounts=50, owners=5, days=30), lambda _: None
    )
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(
            "INSERT INTO users (id, email, name, password_hash)"
            " VALUES (gen_random_uuid(), 'anne@example.net', 'Anne', 'hash')"
        )
        owners, requests = await requests_into_past(url, "anne@example.net", Random(1))
        hashes = await connection.fetch(
            "SELECT DISTINCT password_hash FROM users WHERE id = ANY($1::uuid[])", list(owners)
        )
        assert [row[0] for row in hashes] == ["hash"]
        for it in requests["operation"]:
            user = await connection.fetchval(
                "SELECT user_id FROM outcomes WHERE operation_id = $1 AND leg = 'request'",
                UUID(it.path.rpartition("/")[2]),
            )
            assert user == it.owner
        for it in requests["statement"] + requests["balance_at"]:
            owner = await connection.fetchval(
                "SELECT owner FROM accounts WHERE number = $1", it.path.split("/")[3]
            )
            assert owner == it.owner
    finally:
        await connection.close()


async def test_the_server_keeps_a_share_of_its_tables_in_memory(platform: Platform) -> None:
    [database] = await make_ledger_databases(platform, "in_memory", 1, PARTITIONS)
    url = platform.postgres_direct(0, database=database)
    server = Server(platform.configuration.state, replace(platform.endpoints, postgres=url))
    await asyncio.to_thread(server.checkpoint)
    assert await asyncio.to_thread(server.table_bytes) > 0
    superuser = platform.postgres_direct(0, "postgres", "postgres")
    connection = await asyncpg.connect(superuser)
    wanted = "SELECT setting FROM pg_file_settings WHERE name = 'shared_buffers' ORDER BY seqno"
    try:
        assert await asyncio.to_thread(server.keep_in_memory, 1 / 20) == 16
        assert (await connection.fetch(wanted))[-1][0] == "16MB"
    finally:
        await connection.execute("ALTER SYSTEM RESET shared_buffers")
        await connection.close()
