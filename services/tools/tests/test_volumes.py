"""The ledger's volumes: what is decided once stays decided once, in whichever volume it is."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
import pytest_asyncio
from alembic import command
from alembic.config import Config
from sqlalchemy import text

from microfin.ledger.decision import account_numbers, decide
from microfin.ledger.records import Decisions
from microfin.postgres import queries, statements
from microfin.postgres.archive_reading import Archive
from microfin.postgres.connections import connect_pool
from microfin.postgres.statements import StatementFilter
from microfin.process.settings import CommonSettings
from microfin_local.platform import Platform
from microfin_tools.audit import Violation, audit
from microfin_tools.migrations import run
from microfin_tools.migrations.run import migrate
from microfin_worker import batch_statement, postgres_store, volumes
from microfin_worker.ports import BatchWrite, Place, RepeatsFound
from microfin_worker.postgres_store import PostgresStore
from microfin_worker.volumes import OutcomeCount, VolumeKeeper
from support.postgres_ledger import PostgresLedger, make_ledger_databases

ALICE = uuid4().hex
NO_ARCHIVE = Archive(0, 1, "", CommonSettings())
MAY_BE_IN_A_VOLUME = """
SELECT count(*) FROM unnest($1::uuid[]) AS asked (operation) JOIN volume_summaries
    ON chunk = operation_chunk(operation)
    AND bits & operation_bits(operation) = operation_bits(operation)
"""
COLUMNS_BUT_VOLUME = """
SELECT column_name FROM information_schema.columns
WHERE table_schema = 'public' AND table_name = 'outcomes' AND column_name <> 'volume'
"""
BY_VOLUME = "SELECT volume, count(*) FROM {} GROUP BY volume ORDER BY volume"


@pytest_asyncio.fixture
async def ledger(platform: Platform) -> AsyncIterator[PostgresLedger]:
    databases = await make_ledger_databases(platform, f"volumes_{uuid4().hex[:10]}", 1, 2)
    urls = [platform.postgres_direct(0, database=database) for database in databases]
    async with PostgresLedger(urls, 2) as ledger:
        yield ledger


async def turn(ledger: PostgresLedger) -> int | None:
    """Let the newest volume be full at once, and turn to the next."""
    async with ledger.pools[0].acquire() as connection:
        await connection.execute("UPDATE routing SET outcomes_per_volume = 1")
        volume: int | None = await connection.fetchval("SELECT turn_volume()")
        await connection.execute("UPDATE routing SET outcomes_per_volume = 4000000")
    return volume


async def by_volume(ledger: PostgresLedger, table: str) -> dict[int, int]:
    async with ledger.pools[0].acquire() as connection:
        return dict(await connection.fetch(BY_VOLUME.format(table)))


async def found_wrong(ledger: PostgresLedger) -> list[Violation]:
    """Return what an audit finds in a ledger at rest."""
    return (await audit(ledger.urls, at_rest=True)).violations


async def test_an_account_goes_on_from_volume_to_volume(ledger: PostgresLedger) -> None:
    first, second = (ledger.open(ALICE, "EUR", partition) for partition in range(2))
    asked = []
    for expected in (1, 2, None):
        asked.append(ledger.request("deposit", first, user=ALICE, amount="5"))
        asked.append(ledger.request("transfer", first, user=ALICE, amount="2", to=second))
        await ledger.drain()
        if expected is not None:
            assert await turn(ledger) == expected
    assert await by_volume(ledger, "entries") == {0: 3, 1: 3, 2: 3}
    pool = ledger.pools[0]
    page = await statements.entries(pool, first, StatementFilter(), 100, NO_ARCHIVE)
    assert [(line.seq, line.balance_after) for line in page.lines] == [
        (6, 900), (5, 1100), (4, 600), (3, 800), (2, 300), (1, 500),
    ]  # fmt: skip
    found = await queries.operations([pool], asked)
    assert {found[operation].operation.status for operation in asked} == {"settled"}
    for line in page.lines:
        at = await statements.balance_at(pool, first, line.time, NO_ARCHIVE)
        assert at.seq >= line.seq
    assert await found_wrong(ledger) == []


async def commit_ahead(ledger: PostgresLedger, store: PostgresStore) -> Decisions:
    """Commit the oldest record of the store's log as one that was decided without looking up."""
    batch = [ledger.logs[store.partition].popleft()]
    async with store.transaction() as transaction:
        row = await transaction.lock()
        accounts = await transaction.accounts(account_numbers(batch, row.partition, row.routing))
    decisions = decide(row.partition, row.routing, accounts, {}, batch)
    await store.commit(
        Place(row.partition, row.epoch, row.next_offset, row.routing),
        BatchWrite(
            decisions=decisions,
            versions={number: it.version for number, it in accounts.items()},
            quarantined=[],
            sent=[],
            next_offset=batch[-1].offset + 1,
            fingerprint=b"fingerprint",
        ),
    )
    return decisions


@pytest.mark.parametrize("summed_up", [True, False])
@pytest.mark.parametrize("in_volume", [0, 1, 2])
async def test_a_leg_that_any_volume_has_is_not_decided_again(
    ledger: PostgresLedger, in_volume: int, summed_up: bool
) -> None:
    account = ledger.open(ALICE, "EUR", 0)
    repeated = []
    for _ in range(3):
        ledger.request("deposit", account, user=ALICE, amount="5")
        repeated.append(ledger.logs[0][-1].command)
        await ledger.drain()
        await turn(ledger)
    if summed_up:
        await VolumeKeeper(ledger.pools[0], OutcomeCount(), pause=0).keep()
    before = await by_volume(ledger, "outcomes")
    ledger.append_to(0, repeated[in_volume])
    record = ledger.logs[0][-1]
    with pytest.raises(RepeatsFound):
        await commit_ahead(ledger, ledger.stores[0])
    ledger.logs[0].append(record)
    await ledger.drain()  # the transaction looks it up, and decides nothing
    assert await by_volume(ledger, "outcomes") == before
    assert await found_wrong(ledger) == []


async def test_an_audit_finds_a_leg_that_two_volumes_have(ledger: PostgresLedger) -> None:
    account = ledger.open(ALICE, "EUR", 0)
    operation = ledger.request("deposit", account, user=ALICE, amount="5")
    await ledger.drain()
    assert await turn(ledger) == 1
    columns = ", ".join(
        row["column_name"] for row in await ledger.pools[0].fetch(COLUMNS_BUT_VOLUME)
    )
    await ledger.pools[0].execute(
        f"INSERT INTO outcomes ({columns}, volume) SELECT {columns}, 1 FROM outcomes"  # noqa: S608 - the columns are ours
        f" WHERE operation_id = '{operation}'"
    )
    found = await found_wrong(ledger)
    assert [it.invariant for it in found if it.what == "one leg has two outcomes"] == [4], found


async def test_workers_that_ask_at_once_open_one_volume(ledger: PostgresLedger) -> None:
    account = ledger.open(ALICE, "EUR", 0)
    ledger.request("deposit", account, user=ALICE, amount="5")
    await ledger.drain()
    pool = ledger.pools[0]
    await pool.execute("UPDATE routing SET outcomes_per_volume = 2")
    answers = await asyncio.gather(*(pool.fetchval("SELECT turn_volume()") for _ in range(5)))
    assert sorted(answers, key=str) == [1, *[None] * 4]
    assert await pool.fetchval("SELECT turn_volume()") is None
    rows = await pool.fetch("SELECT DISTINCT volume, outcomes_in_volume FROM partitions")
    assert [tuple(row) for row in rows] == [(1, 0)]


async def test_a_partition_begins_in_the_newest_volume(ledger: PostgresLedger) -> None:
    account = ledger.open(ALICE, "EUR", 0)
    ledger.request("deposit", account, user=ALICE, amount="5")
    await ledger.drain()
    await turn(ledger)
    await ledger.grow(4)
    volumes = await ledger.pools[0].fetch("SELECT volume FROM partitions")
    assert [row["volume"] for row in volumes] == [1] * 4


async def test_a_keeper_opens_a_volume_and_sums_up_the_full_one(ledger: PostgresLedger) -> None:
    pool, account = ledger.pools[0], ledger.open(ALICE, "EUR", 0)
    asked = [ledger.request("deposit", account, user=ALICE, amount="5") for _ in range(200)]
    await ledger.drain()
    keeper = VolumeKeeper(pool, OutcomeCount(), pause=0)
    await keeper.keep()
    assert await pool.fetchval("SELECT count(*) FROM volume_summaries") == 0
    await pool.execute("UPDATE routing SET outcomes_per_volume = 200")
    await keeper.keep()
    rows = await pool.fetch("SELECT volume, summed_chunks FROM volumes ORDER BY volume")
    assert [tuple(row) for row in rows] == [(0, 131072), (1, 0)]
    strangers = [uuid4().hex for _ in range(1_000)]
    found = {
        kind: await pool.fetchval(MAY_BE_IN_A_VOLUME, operations)
        for kind, operations in (("asked", asked), ("strangers", strangers))
    }
    assert found == {"asked": 200, "strangers": 0}


async def test_a_worker_that_has_written_enough_lets_its_keeper_work(
    ledger: PostgresLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(volumes, "ASK_AFTER", 3)
    await ledger.pools[0].execute("UPDATE routing SET outcomes_per_volume = 1")
    account = ledger.open(ALICE, "EUR", 0)
    await ledger.drain()
    store = ledger.stores[0]
    keeping = asyncio.create_task(VolumeKeeper(ledger.pools[0], store.written, pause=0).run())
    for expected in (0, 0, 1):
        ledger.request("deposit", account, user=ALICE, amount="5")
        await commit_ahead(ledger, store)
        while True:
            if await ledger.pools[0].fetchval("SELECT max(volume) FROM volumes") == expected:
                break
            await asyncio.sleep(0.01)
    keeping.cancel()
    assert await found_wrong(ledger) == []


async def test_a_volume_that_cannot_be_opened_now_grows_on(ledger: PostgresLedger) -> None:
    pool = ledger.pools[0]
    await pool.execute("UPDATE routing SET outcomes_per_volume = 1")
    ledger.open(ALICE, "EUR", 0)
    await ledger.drain()
    keeper = VolumeKeeper(pool, OutcomeCount(), pause=0)
    async with pool.acquire() as other, other.transaction():
        await other.execute("SELECT FROM partitions WHERE partition = 1 FOR UPDATE")
        with pytest.raises(asyncpg.LockNotAvailableError):
            await keeper.keep()
    assert await pool.fetchval("SELECT max(volume) FROM volumes") == 0
    await keeper.keep()
    assert await pool.fetchval("SELECT max(volume) FROM volumes") == 1


async def test_every_volume_refuses_changes(ledger: PostgresLedger) -> None:
    account = ledger.open(ALICE, "EUR", 0)
    ledger.request("deposit", account, user=ALICE, amount="5")
    await ledger.drain()
    await turn(ledger)
    homes = ("public", "volume_0", "volume_1")
    tables = [f"{home}.{table}" for home in homes for table in ("outcomes", "entries")]
    for table in (*tables, "volume_summaries"):
        for change in ("DELETE FROM", "TRUNCATE"):
            with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="append-only"):
                await ledger.pools[0].execute(f"{change} {table}")


async def test_a_worker_may_turn_the_volume_and_nothing_else(
    platform: Platform, ledger: PostgresLedger
) -> None:
    database = ledger.urls[0].rsplit("/", 1)[1].split("?")[0]
    worker = await connect_pool(
        platform.environment("worker", database, "unused")["MICROFIN_DATABASES"], CommonSettings()
    )
    try:
        async with worker.acquire() as connection, connection.transaction():
            assert await connection.fetchval("SELECT turn_volume()") is None
        for forbidden in (
            "SELECT make_volume(7)",
            "INSERT INTO volume_summaries VALUES (0, 7, repeat('0', 512)::bit(512))",
            "SELECT add_volume(7)",
            "UPDATE partitions SET volume = 7",
            "UPDATE routing SET outcomes_per_volume = 1",
            "INSERT INTO volumes VALUES (7)",
            "SELECT FROM volume_0.outcomes",
        ):
            async with worker.acquire() as connection:
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await connection.execute(forbidden)
    finally:
        worker.terminate()


# The migration ------------------------------------------------------------------------------------


def migrate_to(url: str, revision: str) -> None:
    """Bring a database to a revision before the newest."""
    with run._engine(url).connect() as connection:
        run._ensure_roles(connection)
        configuration = Config(attributes={"connection": connection})
        configuration.set_main_option("script_location", str(Path(run.__file__).parent))
        command.upgrade(configuration, revision)
        run._show_schema(connection)
        connection.execute(
            text(
                "INSERT INTO routing (shard, shards, generation, partition_count)"
                " VALUES (0, 1, 1, 2)"
            )
        )
        connection.commit()


def batch_statement_of_before(place: Place, write: BatchWrite) -> str:
    """Call `write_batch` without what came later: references, metadata and holds."""
    arguments = list(batch_statement._arguments(place, write))
    entries = 7 + 26  # after the place and the outcomes
    changed = entries + 11
    opened = changed + 8
    holds = opened + 10 + 3 + 4 + 2
    del arguments[holds : holds + 6]
    del arguments[opened + 9], arguments[changed + 7], arguments[entries + 10]
    del arguments[entries - 7 : entries]
    return f"SELECT write_batch({','.join(arguments)})"


async def raise_epoch_of_before(store: PostgresStore, _: int | None) -> int:
    """Claim a new partition, without saying which wire version is read."""
    async with store._call(transaction=True) as connection:
        await connection.execute(
            "INSERT INTO partitions (partition, epoch, generation, partition_count)"
            " SELECT $1, 1, generation, partition_count FROM routing",
            store.partition,
        )
    return 1


@pytest_asyncio.fixture
async def before(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[PostgresLedger]:
    """A ledger of the schema before volumes, with some history, and workers of that release."""
    monkeypatch.setattr("microfin.postgres.shards.NEEDED_SCHEMA", "0007")
    monkeypatch.setattr(
        postgres_store,
        "_KNOWN",
        postgres_store._KNOWN.replace(
            "legs_of($1::uuid[])", "outcomes WHERE operation_id = ANY($1::uuid[])"
        )
        .replace("reference, metadata", "NULL AS reference, NULL AS metadata")
        .replace("held, hold, held_change, hold_left", "0 AS held, NULL AS hold, 0 AS held_change")
        .replace("(extract(epoch FROM ends_at) * 1000)::bigint", "NULL AS hold_left, NULL"),
    )
    monkeypatch.setattr(
        postgres_store, "_ACCOUNTS", postgres_store._ACCOUNTS.replace("held", "0 AS held")
    )
    monkeypatch.setattr(postgres_store, "batch_statement", batch_statement_of_before)
    monkeypatch.setattr(PostgresStore, "_raise_epoch", raise_epoch_of_before)
    database = f"before_volumes_{uuid4().hex[:10]}"
    await platform.create_database(database)
    url = platform.postgres_direct(0, database=database)
    await asyncio.to_thread(migrate_to, url, "0007")
    async with PostgresLedger([url], 2) as ledger:
        for partition in range(2):
            account = ledger.open(ALICE, "EUR", partition)
            for _ in range(10):
                ledger.request("deposit", account, user=ALICE, amount="5")
        await ledger.drain()
        yield ledger


async def move_money(ledger: PostgresLedger, done: asyncio.Event) -> int:
    """Let a partition settle a batch after the other until `done`; return how many deposits."""
    account = ledger.open(ALICE, "EUR", 1)
    await ledger.settle(1)
    moved = 0
    while not done.is_set() or moved < 20:
        ledger.request("deposit", account, user=ALICE, amount="1")
        await ledger.settle(1)
        moved += 1
        await asyncio.sleep(0)
    return moved


async def test_a_filled_ledger_is_migrated_while_money_moves(before: PostgresLedger) -> None:
    done = asyncio.Event()
    moving = asyncio.create_task(move_money(before, done))
    (revision,) = await asyncio.to_thread(migrate, before.urls, 2)
    assert revision >= "0008"
    done.set()
    moved = await moving
    assert await by_volume(before, "outcomes") == {0: 22 + 1 + moved}
    assert await turn(before) == 1
    await move_money(before, done)
    assert set(await by_volume(before, "outcomes")) == {0, 1}
    assert await found_wrong(before) == []


async def test_a_reader_delays_the_migration_and_nobody_else(before: PostgresLedger) -> None:
    reading: Any = before.pools[0].acquire()
    async with reading as connection:
        transaction = connection.transaction(isolation="repeatable_read")
        await transaction.start()
        await connection.fetchval("SELECT count(*) FROM outcomes")
        migrating = asyncio.create_task(asyncio.to_thread(migrate, before.urls, 2))
        done = asyncio.Event()
        done.set()
        for _ in range(3):
            assert await move_money(before, done) == 20
        await asyncio.sleep(1.5)
        assert not migrating.done()
        await transaction.rollback()
    await migrating
    assert await found_wrong(before) == []
