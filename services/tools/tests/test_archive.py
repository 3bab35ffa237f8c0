"""Old volumes go to the archive: nothing is lost or doubled, and money moves on meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
import pytest_asyncio

from microfin.postgres.archives import WrongArchive
from microfin.postgres.connections import connect_pool
from microfin.postgres.shards import NotMigrated, ShardPlace, WrongShard
from microfin.process.settings import CommonSettings
from microfin_local.platform import Platform
from microfin_tools.archive import Moved, NotArchivable, archive, job
from microfin_tools.migrations.run import migrate, migrate_archives
from support.cli import microfin
from support.postgres_ledger import PostgresLedger, make_archives, make_ledger_databases

ALICE = uuid4().hex
YEAR = timedelta(days=400)
BY_VOLUME = "SELECT volume, count(*) FROM outcomes GROUP BY volume ORDER BY volume"
ACCOUNTS = """
SELECT number, owner, currency, opened_at, balance, seq, entry_time, version, state
FROM {} ORDER BY number
"""
CONTRA = "SELECT partition, contra, currency, balance FROM {} ORDER BY 1, 2, 3"


class Archived:
    """A ledger with archives, and a connection to each archive."""

    def __init__(self, ledger: PostgresLedger, urls: list[str], archives: list[Any]) -> None:
        self.ledger = ledger
        self.urls = urls
        self.archives = archives

    async def archive(self, **options: Any) -> list[Moved]:
        return await archive(self.ledger.urls, self.urls, **{"older_than": YEAR, **options})

    async def rows(self, query: str, *, of_archive: bool = False) -> list[tuple[Any, ...]]:
        source = self.archives[0] if of_archive else self.ledger.pools[0]
        return [tuple(row) for row in await source.fetch(query)]

    async def by_volume(self, *, of_archive: bool = False) -> dict[int, int]:
        return dict(await self.rows(BY_VOLUME, of_archive=of_archive))  # type: ignore[arg-type]

    async def both_ends_agree(self) -> None:
        """Check that the ledger goes on from where its archive ends."""
        assert await self.rows(ACCOUNTS.format("archived_accounts")) == await self.rows(
            ACCOUNTS.format("accounts"), of_archive=True
        )
        assert await self.rows(CONTRA.format("archived_contra_balances")) == await self.rows(
            CONTRA.format("contra_balances"), of_archive=True
        )


@pytest_asyncio.fixture
async def archived(platform: Platform) -> AsyncIterator[Archived]:
    """A ledger of one shard and two partitions, with an empty archive."""
    name = f"archive_{uuid4().hex[:10]}"
    databases = await make_ledger_databases(platform, name, 1, 2)
    urls = [platform.postgres_direct(0, database=database) for database in databases]
    archive_urls = await make_archives(platform, name, urls)
    connections = [await asyncpg.connect(url, ssl=False) for url in archive_urls]
    async with PostgresLedger(urls, 2) as ledger:
        yield Archived(ledger, archive_urls, connections)
    for connection in connections:
        await connection.close()


async def some_history(ledger: PostgresLedger, volumes: int = 2) -> tuple[str, str]:
    """Move money between two accounts, and fill `volumes` volumes; return the accounts."""
    first, second = (ledger.open(ALICE, "EUR", partition) for partition in range(2))
    for _ in range(volumes):
        ledger.request("deposit", first, user=ALICE, amount="5")
        ledger.request("transfer", first, user=ALICE, amount="2", to=second)
        ledger.request("withdraw", second, user=ALICE, amount="1")
        await ledger.drain()
        await ledger.turn()
    return first, second


def states(moved: list[Moved]) -> list[tuple[int, str]]:
    return [(it.volume, it.state) for it in moved]


async def test_old_volumes_go_to_the_archive(archived: Archived) -> None:
    ledger = archived.ledger
    first, _ = await some_history(ledger)
    before = await archived.by_volume()
    moved = await archived.archive()
    assert states(moved) == [(0, "archived"), (1, "archived"), (2, "kept")]
    assert "newest" in moved[-1].reason
    assert await archived.by_volume(of_archive=True) == before
    assert await archived.by_volume() == {}
    assert [row[0] for row in await archived.rows("SELECT volume FROM volumes")] == [2]
    assert await archived.rows(
        "SELECT volume, outcomes, entries FROM archived_volumes ORDER BY 1"
    ) == [(it.volume, it.outcomes, it.entries) for it in moved[:2]]
    await archived.both_ends_agree()
    assert await archived.rows(ACCOUNTS.format("accounts")) == await archived.rows(
        ACCOUNTS.format("archived_accounts")
    )
    ledger.request("deposit", first, user=ALICE, amount="5")
    await ledger.drain()
    rows = await archived.rows("SELECT number, seq, balance FROM accounts")
    assert (first, 5, 1100) in rows
    assert states(await archived.archive()) == [(2, "kept")]


async def test_a_dry_run_changes_nothing(archived: Archived) -> None:
    await some_history(archived.ledger)
    before = await archived.by_volume()
    assert states(await archived.archive(dry_run=True)) == [(0, "ready"), (1, "ready"), (2, "kept")]
    assert await archived.by_volume() == before
    assert await archived.by_volume(of_archive=True) == {}


async def test_states_and_openings_of_each_volume_are_kept(archived: Archived) -> None:
    ledger = archived.ledger
    first, second = (ledger.open(ALICE, "EUR", partition) for partition in range(2))
    await ledger.drain()
    for state in ("frozen", "open", "frozen"):
        ledger.request("set_state", first, state=state)
    await ledger.drain()
    await ledger.turn()
    third = ledger.open(ALICE, "USD", 0)
    ledger.request("set_state", second, state="closed")
    await ledger.drain()
    await ledger.turn()
    ledger.request("set_state", first, state="open")
    await ledger.drain()
    await archived.archive()
    rows = await archived.rows("SELECT number, state, version, seq FROM archived_accounts")
    assert {row[0]: row[1:] for row in rows} == {
        first: ("frozen", 4, 0),
        second: ("closed", 2, 0),
        third: ("open", 1, 0),
    }
    await archived.both_ends_agree()


async def test_money_moves_while_a_volume_is_archived(archived: Archived) -> None:
    ledger = archived.ledger
    first, second = await some_history(ledger)
    done = asyncio.Event()
    asked = []

    async def move() -> None:
        while not done.is_set() or len(asked) < 20:
            asked.append(ledger.request("deposit", second, user=ALICE, amount="1"))
            asked.append(ledger.request("transfer", second, user=ALICE, amount="1", to=first))
            await ledger.drain()
            await asyncio.sleep(0)

    moving = asyncio.create_task(move())
    assert states(await archived.archive())[:2] == [(0, "archived"), (1, "archived")]
    done.set()
    await moving
    (row,) = await archived.rows(
        "SELECT count(DISTINCT operation_id) FROM outcomes WHERE kind IN ('deposit', 'transfer')"
    )
    assert row == (len(asked),)
    await archived.both_ends_agree()


async def test_a_repeat_is_recognised_in_the_volumes_that_stay(archived: Archived) -> None:
    ledger = archived.ledger
    first, _ = await some_history(ledger)
    ledger.request("deposit", first, user=ALICE, amount="5")
    repeated = ledger.logs[0][-1].command
    await ledger.drain()
    await ledger.turn()
    await archived.archive(older_than=YEAR)
    ledger.request("deposit", first, user=ALICE, amount="7")
    newer = ledger.logs[0][-1].command
    await ledger.drain()
    before = await archived.rows("SELECT balance, seq FROM accounts ORDER BY number")
    ledger.append_to(0, newer)
    await ledger.drain()
    assert await archived.rows("SELECT balance, seq FROM accounts ORDER BY number") == before
    # What the archive has is forgotten: that is why it must be older than a key is remembered.
    ledger.append_to(0, repeated)
    await ledger.drain()
    assert await archived.rows("SELECT balance, seq FROM accounts ORDER BY number") != before


async def until_copied(archived: Archived) -> None:
    while await archived.by_volume(of_archive=True) == {}:  # noqa: ASYNC110 - it is a database's
        await asyncio.sleep(0.05)


async def test_a_reader_delays_the_job_and_nobody_else(
    archived: Archived, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "_PAUSES", (0.2, 0.2))
    ledger = archived.ledger
    first, _ = await some_history(ledger)
    reading: Any = ledger.pools[0].acquire()
    async with reading as connection:
        transaction = connection.transaction(isolation="repeatable_read")
        await transaction.start()
        await connection.fetchval("SELECT count(*) FROM outcomes")
        archiving = asyncio.create_task(archived.archive())
        await until_copied(archived)
        for _ in range(20):
            ledger.request("deposit", first, user=ALICE, amount="1")
            await ledger.drain()
        assert not archiving.done()
        assert await archived.rows("SELECT count(*) FROM archived_volumes") == [(0,)]
        await transaction.rollback()
    assert states(await archiving)[:2] == [(0, "archived"), (1, "archived")]
    await archived.both_ends_agree()


async def test_the_job_gives_up_where_a_reader_never_ends(
    archived: Archived, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "_PATIENCE", 0.0)
    await some_history(archived.ledger)
    reading: Any = archived.ledger.pools[0].acquire()
    async with reading as connection, connection.transaction():
        await connection.fetchval("SELECT count(*) FROM outcomes")
        with pytest.raises(NotArchivable, match="Nothing is lost or doubled"):
            await archived.archive()
    assert states(await archived.archive())[:2] == [(0, "archived"), (1, "archived")]
    await archived.both_ends_agree()


@pytest.mark.parametrize("side", ["ledger", "archive"])
@pytest.mark.parametrize("where", ["copy", "_drop"])
async def test_a_run_that_breaks_off_is_completed_by_the_next(
    archived: Archived, monkeypatch: pytest.MonkeyPatch, where: str, side: str
) -> None:
    """Before the archive's commit, and between it and the ledger's."""
    await some_history(archived.ledger)
    before = await archived.by_volume()
    opened: list[Any] = []
    real = job._move

    async def remember(pair: Any, *arguments: Any) -> Any:
        opened.append(pair)
        return await real(pair, *arguments)

    async def be_killed(*_: Any) -> None:
        connection = getattr(opened[-1], side)
        other = archived.archives[0] if side == "archive" else archived.ledger.pools[0]
        await other.execute("SELECT pg_terminate_backend($1)", connection.get_server_pid())
        await connection.execute("SELECT 1")

    monkeypatch.setattr(job, "_move", remember)
    monkeypatch.setattr(job, where, be_killed)
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await archived.archive()
    monkeypatch.undo()
    assert await archived.by_volume() == before
    committed = {} if where == "copy" else {0: before[0]}
    assert await archived.by_volume(of_archive=True) == committed
    assert states(await archived.archive())[:2] == [(0, "archived"), (1, "archived")]
    assert await archived.by_volume(of_archive=True) == before
    await archived.both_ends_agree()


async def test_the_command_says_what_goes_what_stays_and_what_is_forgotten(
    archived: Archived,
) -> None:
    await some_history(archived.ledger, 1)
    settings = {"MICROFIN_DATABASES_DIRECT": archived.ledger.urls[0]}
    ran = await microfin(settings, "archive")
    assert (ran.code, "MICROFIN_ARCHIVES_DIRECT is not set" in ran.errors) == (2, True), ran.errors
    settings["MICROFIN_ARCHIVES_DIRECT"] = archived.urls[0]
    ran = await microfin(settings, "archive", "--older-than-days", "29")
    assert (ran.code, "or equal to 30" in ran.errors) == (2, True), ran.errors
    ran = await microfin(settings, "archive", "--dry-run")
    assert ran.code == 0, ran.errors
    assert "remembered" not in ran.errors
    assert "ready" in ran.output
    ran = await microfin(settings, "archive", "--older-than-days", "30", "--json")
    assert "remembered for 30 days only" in ran.errors
    assert [(it["volume"], it["state"]) for it in ran.json()] == [(0, "archived"), (1, "kept")]
    ran = await microfin(settings, "migrate", "--archives", "--json")
    assert ran.json()[0]["revision"] >= "0009"


# What is refused ----------------------------------------------------------------------------------


async def test_a_young_volume_stays(archived: Archived) -> None:
    await some_history(archived.ledger, 1)
    (moved,) = await archived.archive(older_than=timedelta(days=365 * 20))
    assert moved.state == "kept"
    assert "younger outcomes, such as one of 2023-11-14" in moved.reason


async def test_a_transfer_under_way_keeps_its_volume(archived: Archived) -> None:
    ledger = archived.ledger
    first, second = (ledger.open(ALICE, "EUR", partition) for partition in range(2))
    ledger.request("deposit", first, user=ALICE, amount="5")
    await ledger.drain()
    ledger.request("transfer", first, user=ALICE, amount="2", to=second)
    await ledger.settle(0)
    await ledger.turn()
    moved = await archived.archive()
    assert "waits in an outbox" in moved[0].reason
    await ledger.pools[0].execute("DELETE FROM outbox")
    moved = await archived.archive()
    assert "neither credited nor refunded" in moved[0].reason
    await ledger.drain()
    await ledger.turn()
    assert states(await archived.archive())[:2] == [(0, "archived"), (1, "archived")]
    await archived.both_ends_agree()


async def test_only_one_job_works_at_a_time(
    archived: Archived, monkeypatch: pytest.MonkeyPatch
) -> None:
    await some_history(archived.ledger)
    begun, go_on = asyncio.Event(), asyncio.Event()
    real = job._drop

    async def wait(*arguments: Any) -> None:
        begun.set()
        await go_on.wait()
        await real(*arguments)

    monkeypatch.setattr(job, "_drop", wait)
    first = asyncio.create_task(archived.archive())
    await begun.wait()
    with pytest.raises(NotArchivable, match="Another `microfin archive` is at work on shard 0"):
        await archived.archive()
    go_on.set()
    assert states(await first)[:2] == [(0, "archived"), (1, "archived")]
    await archived.both_ends_agree()


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM {}.entries WHERE seq = 1",
        "UPDATE {}.entries SET counterparty = 'x' WHERE seq = 1",
        "UPDATE {}.outcomes SET body_hash = 'x' WHERE kind = 'deposit'",
    ],
)
async def test_a_copy_that_differs_removes_nothing(
    archived: Archived, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    await some_history(archived.ledger, 1)
    before = await archived.by_volume()
    real = job.copy

    async def copy_wrongly(source: Any, target: Any, volume: int) -> None:
        await real(source, target, volume)
        for table in ("outcomes", "entries"):
            await target.execute(
                f"ALTER TABLE volume_{volume}.{table} DISABLE TRIGGER {table}_are_immutable"
            )
        await target.execute(change.format(f"volume_{volume}"))

    monkeypatch.setattr(job, "copy", copy_wrongly)
    with pytest.raises(NotArchivable, match="Nothing was removed"):
        await archived.archive()
    assert await archived.by_volume() == before
    assert await archived.by_volume(of_archive=True) == {}


async def test_an_archive_of_an_older_backup_is_refused(archived: Archived) -> None:
    await some_history(archived.ledger)
    await archived.archive()
    for table in ("outcomes", "entries"):
        await archived.archives[0].execute(f"DROP TABLE volume_1.{table}")
    await archived.archives[0].execute("DELETE FROM volumes WHERE volume = 1")
    with pytest.raises(NotArchivable, match="lacks volume 1"):
        await archived.archive()


async def test_nobody_changes_what_is_archived(archived: Archived) -> None:
    await some_history(archived.ledger)
    await archived.archive()
    tables = ("volumes", "accounts", "contra_balances", "partitions")
    for table in tables:
        for change in ("DELETE FROM", "TRUNCATE"):
            with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="only by"):
                await archived.ledger.pools[0].execute(f"{change} archived_{table}")
    for table in ("outcomes", "entries"):
        with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="append-only"):
            await archived.archives[0].execute(f"DELETE FROM {table}")  # noqa: S608 - ours


# Whose archive a database is ----------------------------------------------------------------------


async def test_nobody_takes_an_archive_for_a_shard_or_a_shard_for_an_archive(
    archived: Archived,
) -> None:
    shards, archives = archived.ledger.urls, archived.urls
    pool = await connect_pool(archives[0], CommonSettings(), place=ShardPlace(0, 1))
    with pytest.raises(NotMigrated, match="MICROFIN_ARCHIVES"):
        await pool.fetchval("SELECT 1")
    await pool.close()
    with pytest.raises(WrongShard, match="is the archive of shard 0 of 1"):
        await asyncio.to_thread(migrate, archives, 2)
    with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="is an archive"):
        await archived.archives[0].execute(
            "INSERT INTO routing (shard, shards, generation, partition_count) VALUES (0, 1, 1, 2)"
        )
    with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="is a shard"):
        await archived.ledger.pools[0].execute(
            "INSERT INTO archive (shard_id, shard, shards) VALUES (gen_random_uuid(), 0, 1)"
        )
    with pytest.raises(WrongArchive, match="is shard 0: each archive needs a database"):
        await asyncio.to_thread(migrate_archives, shards, shards)
    with pytest.raises(WrongArchive, match="is no archive"):
        await archive(shards, shards, older_than=YEAR)


async def test_an_archive_of_another_shard_or_ledger_is_refused(
    platform: Platform, archived: Archived
) -> None:
    name = f"another_{uuid4().hex[:10]}"
    databases = await make_ledger_databases(platform, name, 2, 2)
    urls = [platform.postgres_direct(0, database=database) for database in databases]
    archives = await make_archives(platform, name, urls)
    assert await asyncio.to_thread(migrate_archives, urls, archives)  # twice
    for refused in (archives[::-1], [archives[0], archives[0]]):
        with pytest.raises(WrongArchive, match=r"the archive of shard"):
            await asyncio.to_thread(migrate_archives, urls, refused)
        with pytest.raises(WrongArchive, match=r"is the archive of shard"):
            await archive(urls, refused, older_than=YEAR)
    with pytest.raises(WrongArchive, match="the archive of shard 0 of 2"):
        await archive(archived.ledger.urls, archives[:1], older_than=YEAR)
    (database,) = await make_ledger_databases(platform, f"{name}_third", 1, 2)
    third = [platform.postgres_direct(0, database=database)]
    with pytest.raises(WrongArchive, match="of a shard of another ledger"):
        await archive(third, archived.urls, older_than=YEAR)
    with pytest.raises(WrongArchive, match="of a shard of another ledger"):
        await asyncio.to_thread(migrate_archives, third, archived.urls)
