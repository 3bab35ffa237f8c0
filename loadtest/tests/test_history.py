"""A made-up past: as planned, explained, and out of the way of what comes after it."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from random import Random
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from msgspec.structs import replace

from microfin.ledger.operation import Outcome
from microfin.ledger.records import Entry
from microfin.ledger.routing import Routing
from microfin_loadtest.errors import LoadImpossible
from microfin_loadtest.history.decided import Decided, Past
from microfin_loadtest.history.make import HistoryRequest, make_history
from microfin_loadtest.history.rows import ENTRIES, OUTCOMES, entry_lines, outcome_lines
from microfin_loadtest.history.shard import Lines, Shard
from microfin_loadtest.history.traffic import Plan, requests
from microfin_loadtest.ledger import audit_at_rest
from microfin_local.platform import Platform
from microfin_tools.archive import archive
from microfin_tools.audit import audit
from support import ledger_history
from support.postgres_ledger import PostgresLedger, make_archives, make_ledger_databases

PARTITIONS = ledger_history.PARTITIONS
REQUEST = HistoryRequest(operations=3_000, accounts=100, owners=5, days=30)


def plan(operations: int, accounts: int) -> Plan:
    return Plan(
        operations=operations,
        accounts=accounts,
        owners=[uuid4().hex, uuid4().hex],
        begins=1_700_000_000_000,
        ends=1_700_000_100_000,
        mark="m",
    )


async def ledger_databases(platform: Platform, name: str, shards: int) -> list[str]:
    """Make the shards of a ledger whose partitions have all been claimed."""
    databases = await make_ledger_databases(platform, name, shards, PARTITIONS)
    workers = [platform.postgres_direct(0, "microfin_worker", it) for it in databases]
    async with PostgresLedger(workers, PARTITIONS):
        pass
    return [platform.postgres_direct(0, database=it) for it in databases]


async def fetch(url: str, query: str) -> list[tuple[Any, ...]]:
    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(query)]
    finally:
        await connection.close()


async def rows_of(url: str, table: str, columns: Sequence[str]) -> list[tuple[Any, ...]]:
    return await fetch(url, f"SELECT {', '.join(columns)} FROM {table}")  # noqa: S608 - all ours


async def execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


@pytest.mark.parametrize(("operations", "accounts"), [(10, 2), (11, 5), (500, 20), (500, 499)])
def test_it_has_the_operations_that_were_planned(operations: int, accounts: int) -> None:
    wanted = plan(operations, accounts)
    made = list(requests(wanted))
    assert len({it.operation for it in made}) == len(made) == operations
    opened = [it for it in made if it.kind == "open"]
    assert len(opened) == min(accounts, operations // 2)
    assert made == list(requests(wanted)), "the same plan gives the same requests"
    opened = {it.account for it in made if it.kind == "open"}
    again = list(requests(replace(wanted, taken=frozenset(opened))))
    assert opened.isdisjoint(it.account for it in again), "numbers of before are taken"


def test_its_offsets_are_before_the_log() -> None:
    wanted = plan(100, 4)
    past = Past(Routing(1, 1), {0: -50})
    with pytest.raises(ValueError, match="reaches the log"):
        past.decide((it, wanted.begins) for it in requests(wanted))


@pytest.mark.parametrize("shards", [1, 2])
async def test_it_is_explained_and_work_goes_on(platform: Platform, shards: int) -> None:
    """Twice, into a ledger that has a history already and gets more of it."""
    databases = await make_ledger_databases(platform, f"past_{shards}", shards, PARTITIONS)
    urls = [platform.postgres_direct(0, database=it) for it in databases]
    workers = [platform.postgres_direct(0, "microfin_worker", it) for it in databases]
    said: list[str] = []
    async with PostgresLedger(workers, PARTITIONS) as ledger:
        history = await ledger_history.begin(ledger, Random(3))
        for _ in range(2):
            made = await make_history(urls, REQUEST, said.append)
            assert (made["operations"], made["accounts"]) == (3_000, 100)
            audited = await audit_at_rest(urls)
            assert audited["ok"], audited
        assert audited["operations"] >= 6_000
        await ledger_history.move_money(ledger, history, Random(4), 100)
        await ledger.drain()
    audited = await audit_at_rest(urls)
    assert audited["ok"], audited
    assert any("3,000 of 3,000 operations" in it for it in said)


async def test_an_old_history_can_be_archived_and_then_nothing_goes_before_it(
    platform: Platform,
) -> None:
    """Two shards, several volumes each; the younger ones stay, and work goes on."""
    databases = await make_ledger_databases(platform, "old_history", 2, PARTITIONS)
    urls = [platform.postgres_direct(0, database=it) for it in databases]
    workers = [platform.postgres_direct(0, "microfin_worker", it) for it in databases]
    archives = await make_archives(platform, urls)
    request = HistoryRequest(operations=3_000, accounts=100, owners=5, days=800)
    async with PostgresLedger(workers, PARTITIONS) as ledger:
        for url in urls:
            await execute(url, "UPDATE routing SET outcomes_per_volume = 300")
        made = await make_history(urls, request, lambda _: None)
        moved = await archive(urls, archives, older_than=timedelta(days=400))
        stayed = [it for it in moved if it.state == "kept"]
        assert len(stayed) == 2
        assert all("younger" in it.reason for it in stayed)
        assert made["volumes"] // 2 - 1 <= (len(moved) - 2) // 2 <= made["volumes"] // 2 + 1
        report = await audit(urls, at_rest=True, archives=archives)
        assert report.ok, report.violations
        assert report.checked.operations == 3_000
        history = await ledger_history.begin(ledger, Random(3))
        await ledger_history.move_money(ledger, history, Random(4), 100)
        await ledger.drain()
    report = await audit(urls, at_rest=True, archives=archives)
    assert report.ok, report.violations
    with pytest.raises(LoadImpossible, match="fill before you archive"):
        await make_history(urls, request, lambda _: None)


def moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def outcome_row(partition: int, it: Outcome, volume: int) -> tuple[Any, ...]:
    return (
        *(UUID(it.operation), it.leg, it.kind, it.status, it.account, it.counterparty),
        *(UUID(it.user) if it.user else None, it.amount, it.currency, it.seq, it.balance),
        *(it.counterparty_seq, it.reason, it.at_account, it.needed, it.available, it.body_hash),
        *(partition, it.offset, moment(it.time), volume),
    )


def entry_row(partition: int, it: Entry, volume: int) -> tuple[Any, ...]:
    return (
        *(it.account, it.seq, it.amount, it.balance_after, UUID(it.operation), it.leg, it.kind),
        *(it.contra, it.counterparty, partition, moment(it.time), volume),
    )


def lines_of(decided: Sequence[Decided], volume: int) -> Lines:
    return Lines(
        "".join(
            line for it in decided for line in outcome_lines(volume, it.partition, it.outcomes)
        ).encode(),
        "".join(
            line for it in decided for line in entry_lines(volume, it.partition, it.entries)
        ).encode(),
    )


async def test_rows_are_stored_as_they_were_decided(platform: Platform) -> None:
    [url] = await ledger_databases(platform, "past_rows", 1)
    wanted = plan(2_000, 50)
    past = Past(Routing(1, PARTITIONS), dict.fromkeys(range(PARTITIONS), -10_000))
    commands = list(requests(wanted))
    halves = [commands[:1_000], commands[1_000:]]
    decided = [
        past.decide((it, wanted.time_of(1_000 * place + n)) for n, it in enumerate(half))
        for place, half in enumerate(halves)
    ]
    async with Shard(url) as shard:
        for volume, half in zip((-2, -1), decided, strict=True):
            await shard.begin_volume(volume)
            await shard.write(lines_of(half, volume))
            await shard.end_volume()
        assert await fetch(url, "SELECT count(*) FROM outcomes") == [(0,)], "seen before the end"
        await shard.begin_adding((-2, -1))
        await shard.commit()
    stored = await rows_of(url, "outcomes", OUTCOMES)
    assert set(stored) == {
        outcome_row(it.partition, outcome, volume)
        for volume, half in zip((-2, -1), decided, strict=True)
        for it in half
        for outcome in it.outcomes
    }
    stored = await rows_of(url, "entries", ENTRIES)
    assert set(stored) == {
        entry_row(it.partition, entry, volume)
        for volume, half in zip((-2, -1), decided, strict=True)
        for it in half
        for entry in it.entries
    }


async def test_its_volumes_are_below_those_there_and_older_ones_are_lower(
    platform: Platform,
) -> None:
    urls = await ledger_databases(platform, "past_volumes", 2)
    for url in urls:
        await execute(url, "UPDATE routing SET outcomes_per_volume = 700")
    for _ in range(2):
        await make_history(urls, REQUEST, lambda _: None)
    for url in urls:
        spans = await fetch(
            url,
            "SELECT volume, count(*), min(at), max(at) FROM outcomes GROUP BY volume ORDER BY 1",
        )
        assert [span[0] for span in spans] == [-6, -5, -4, -3, -2, -1]
        assert all(350 < span[1] < 1_000 for span in spans), spans
        for history in (spans[:3], spans[3:]):
            for older, newer in pairwise(history):
                assert older[3] < newer[2]
        assert await fetch(url, "SELECT volume FROM volumes ORDER BY 1") == [
            (number,) for number in range(-6, 1)
        ]
        summed_up = "SELECT volume FROM volumes WHERE summed_chunks = 131072 ORDER BY 1"
        assert await fetch(url, summed_up) == [(number,) for number in range(-6, 0)]
        shapes = await fetch(url, SHAPES)
        assert len(shapes) == 7
        assert all(it == shapes[0] for it in shapes), "a volume has other keys or rules"


SHAPES = """
SELECT (SELECT array_agg(indexname || replace(indexdef, schemaname, '') ORDER BY indexname)
        FROM pg_indexes WHERE schemaname = nspname),
    (SELECT array_agg(relname || conname || convalidated ORDER BY relname, conname)
        FROM pg_constraint JOIN pg_class ON pg_class.oid = conrelid
        WHERE relnamespace = pg_namespace.oid),
    (SELECT array_agg(tgname ORDER BY tgname)
        FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid
        WHERE relnamespace = pg_namespace.oid AND NOT tgisinternal)
FROM pg_namespace WHERE nspname ~ '^volume_'
"""


async def until_nobody_is_connected(url: str) -> None:
    """Wait until the server has noticed that a connection is gone."""
    others = "SELECT FROM pg_locks WHERE locktype = 'advisory'"
    async with asyncio.timeout(30):
        while await fetch(url, others):  # noqa: ASYNC110 - nothing here says when
            await asyncio.sleep(0.05)


class Killed(Exception):
    """Stands for the end of the process: nothing is tidied up after it."""


async def test_what_a_killed_fill_left_is_removed_by_the_next(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    urls = await ledger_databases(platform, "past_killed", 2)

    async def die(shard: Shard, *_: object) -> None:
        shard._connection.terminate()
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Shard, "add_contra", die)
        with pytest.raises(Killed):
            await make_history(urls, REQUEST, lambda _: None)
    schemas = "SELECT nspname FROM pg_namespace WHERE nspname ~ '^volume_m'"
    assert await fetch(urls[0], schemas) == [("volume_m1",)], "the test kills too early"
    for url in urls:
        assert await fetch(url, "SELECT count(*) FROM outcomes") == [(0,)]
    audited = await audit_at_rest(urls)
    assert audited["ok"], audited
    await until_nobody_is_connected(urls[0])
    await make_history(urls, REQUEST, lambda _: None)
    audited = await audit_at_rest(urls)
    assert (audited["ok"], audited["operations"]) == (True, 3_000), audited
    users = await fetch(urls[0], "SELECT count(*) FROM users")
    assert users == [(REQUEST.owners,)], "owners of a killed fill are left"


async def test_one_that_fails_leaves_nothing(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    urls = await ledger_databases(platform, "past_failed", 2)

    async def fail(_shard: Shard, *_: object) -> None:
        raise Killed

    monkeypatch.setattr(Shard, "add_owners", fail)
    with pytest.raises(Killed):
        await make_history(urls, REQUEST, lambda _: None)
    for url in urls:
        assert (
            await fetch(url, "SELECT nspname FROM pg_namespace WHERE nspname ~ '^volume_m'") == []
        )
        assert await fetch(url, "SELECT count(*) FROM accounts") == [(0,)]


async def test_an_audit_since_the_last_one_looks_at_all_again(platform: Platform) -> None:
    urls = await ledger_databases(platform, "past_since", 2)
    assert (await audit(urls, since=True)).ok
    assert (await audit(urls, since=True)).mode == "since"
    await make_history(urls, REQUEST, lambda _: None)
    for mode in ("full", "since"):
        audited = await audit(urls, since=True)
        assert (audited.ok, audited.mode) == (True, mode), audited.violations


async def test_it_sums_up_its_volumes_beside_a_keeper_who_does(platform: Platform) -> None:
    """A worker's keeper sums up too, and only one of them can at a time."""
    [url] = await ledger_databases(platform, "past_summed", 1)
    keeper = await asyncpg.connect(url)
    async with Shard(url) as shard:
        await shard.begin_volume(-1)
        await shard.end_volume()
        await shard.begin_adding([-1])
        await shard.commit()
        async with keeper.transaction():
            assert await keeper.fetchval("SELECT sum_up_volume()")
            summing = asyncio.create_task(shard.sum_up())
            await asyncio.sleep(0.2)
        await summing
    await keeper.close()
    assert await fetch(url, "SELECT summed_chunks FROM volumes WHERE volume < 0") == [(131_072,)]


async def test_two_at_a_time_are_refused(platform: Platform) -> None:
    urls = await ledger_databases(platform, "past_twice", 1)
    async with Shard(urls[0]):
        with pytest.raises(LoadImpossible, match="Another"):
            await make_history(urls, REQUEST, lambda _: None)
