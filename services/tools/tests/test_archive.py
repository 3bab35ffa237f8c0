"""Old volumes go to the archive: nothing is lost or doubled, and money moves on meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import msgspec
import pytest
import pytest_asyncio

from microfin.ledger.wire import Command
from microfin.postgres.archives import WrongArchive
from microfin.postgres.connections import DATABASE_ERRORS, connect_pool
from microfin.postgres.shards import NotMigrated, ShardPlace, WrongShard
from microfin.process.settings import CommonSettings
from microfin_local.platform import Platform
from microfin_tools.archive import Moved, NotArchivable, archive, job
from microfin_tools.audit import AuditImpossible, audit
from microfin_tools.audit.shard import AuditedShard
from microfin_tools.cli import quarantine
from microfin_tools.cli.quarantine import QuarantinedRecord
from microfin_tools.migrations.run import migrate, migrate_archives
from microfin_tools.recovery.incomplete import incomplete_operations, stuck_transfers
from support.cli import microfin
from support.postgres_ledger import PostgresLedger, make_archives, make_ledger_databases

ALICE = uuid4().hex
YEAR = timedelta(days=400)
BY_VOLUME = "SELECT volume, count(*) FROM outcomes GROUP BY volume ORDER BY volume"
ACCOUNTS = """
SELECT number, owner, currency, opened_at, balance, held, seq, entry_time, version, state
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
    archive_urls = await make_archives(platform, urls)
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


async def test_a_volume_stays_while_a_hold_of_it_is_open(archived: Archived) -> None:
    ledger = archived.ledger
    first, second = await some_history(ledger, volumes=1)
    hold = ledger.request("hold", first, user=ALICE, amount="2", to=second, lifetime=10**9)
    await ledger.drain()
    await ledger.turn()
    ledger.request("capture", first, user=ALICE, amount="1", hold=hold)
    await ledger.drain()
    await ledger.turn()
    moved = await archived.archive()
    assert states(moved) == [(0, "archived"), (1, "kept")]
    assert f"hold {hold} is open" in moved[-1].reason
    ledger.request("release", first, user=ALICE, hold=hold)
    await ledger.drain()
    await ledger.turn()
    assert states(await archived.archive(dry_run=True))[0] == (1, "ready")
    assert states(await archived.archive())[:3] == [
        (1, "archived"),
        (2, "archived"),
        (3, "archived"),
    ]
    await archived.both_ends_agree()
    report = await audit(ledger.urls, archives=archived.urls, at_rest=True)
    assert report.ok, report.violations


async def test_what_is_held_goes_on_over_the_border(archived: Archived) -> None:
    """A hold is made in one volume, captured in the next and ended in a third."""
    ledger = archived.ledger
    first, second = await some_history(ledger, volumes=1)
    hold = ledger.request("hold", first, user=ALICE, amount="3", to=second, lifetime=10**9)
    await ledger.drain()
    await ledger.turn()
    ledger.request("capture", first, user=ALICE, amount="1", hold=hold)
    await ledger.drain()
    await ledger.turn()
    ledger.request("capture", first, user=ALICE, hold=hold)
    await ledger.drain()
    # Only the volumes before the last capture leave: what was held then is the ledger's beginning.
    moved = await archived.archive()
    assert states(moved) == [(0, "archived"), (1, "archived"), (2, "archived"), (3, "kept")]
    await archived.both_ends_agree()
    held = await archived.rows("SELECT number, held FROM archived_accounts WHERE held > 0")
    assert held == [(first, 200)]
    report = await audit(ledger.urls, archives=archived.urls, at_rest=True)
    assert report.ok, report.violations


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
    with pytest.raises(DATABASE_ERRORS):
        await archived.archive()
    monkeypatch.undo()
    assert await archived.by_volume() == before
    committed = {} if where == "copy" else {0: before[0]}
    assert await archived.by_volume(of_archive=True) == committed
    assert states(await archived.archive())[:2] == [(0, "archived"), (1, "archived")]
    assert await archived.by_volume(of_archive=True) == before
    await archived.both_ends_agree()


async def test_the_next_run_sums_up_what_one_that_broke_off_has_archived(
    archived: Archived, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken_off(*_: Any) -> None:
        raise TimeoutError

    await some_history(archived.ledger)
    monkeypatch.setattr(job, "_sum_up", broken_off)
    with pytest.raises(TimeoutError):
        await archived.archive()
    monkeypatch.undo()
    assert states(await archived.archive()) == [(2, "kept")]
    rows = await archived.archives[0].fetch("SELECT summed_chunks, summed_accounts FROM volumes")
    assert [tuple(row) for row in rows] == [(131_072, 100_000)] * 2


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
    archives = await make_archives(platform, urls)
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


# The audit reads both -----------------------------------------------------------------------------


@pytest_asyncio.fixture
async def half_archived(archived: Archived) -> Archived:
    """A ledger with a transfer whose credit is in the archive's first volume, and a live volume."""
    ledger = archived.ledger
    first, second = await some_history(ledger)
    ledger.request("set_state", second, state="frozen")
    await ledger.drain()
    ledger.request("transfer", first, user=ALICE, amount="1", to=second)  # refunded
    await ledger.settle(0)
    await ledger.turn()
    await ledger.drain()
    await ledger.turn()
    await archived.archive()
    ledger.request("deposit", first, user=ALICE, amount="5")
    await ledger.drain()
    return archived


async def audited(archived: Archived, **options: Any) -> list[tuple[int, str]]:
    """Return what a full audit finds in ledger and archive at rest."""
    report = await audit(archived.ledger.urls, at_rest=True, archives=archived.urls, **options)
    return [(it.invariant, it.what) for it in report.violations]


async def test_a_full_audit_reads_the_archive_as_well(half_archived: Archived) -> None:
    report = await audit(half_archived.ledger.urls, at_rest=True, archives=half_archived.urls)
    assert report.ok, report.violations
    live = sum((await half_archived.by_volume()).values())
    there = sum((await half_archived.by_volume(of_archive=True)).values())
    assert live > 0
    assert there > 0
    assert report.checked.outcomes == live + there
    assert report.checked.accounts == 2


async def test_a_full_audit_without_the_archive_is_impossible_and_says_so(
    half_archived: Archived,
) -> None:
    urls = half_archived.ledger.urls
    with pytest.raises(AuditImpossible, match="set MICROFIN_ARCHIVES"):
        await audit(urls)
    with pytest.raises(AuditImpossible, match="is no archive"):
        await audit(urls, archives=urls)


async def test_since_needs_the_archive_once_and_then_never(half_archived: Archived) -> None:
    ledger = half_archived.ledger
    with pytest.raises(AuditImpossible, match="for its first audit only"):
        await audit(ledger.urls, since=True)
    assert (await audit(ledger.urls, since=True, archives=half_archived.urls)).mode == "full"
    ledger.request("deposit", next(iter(await accounts_of(half_archived))), user=ALICE, amount="1")
    await ledger.drain()
    report = await audit(ledger.urls, since=True, archives=["postgresql://x:y@127.0.0.1:1/none"])
    assert (report.ok, report.mode) == (True, "since"), report.violations
    assert report.checked.outcomes == 1
    # What was never audited in the ledger, and is in the archive now, needs both again.
    await ledger.turn()
    ledger.request("deposit", next(iter(await accounts_of(half_archived))), user=ALICE, amount="1")
    await ledger.drain()
    await ledger.turn()
    await half_archived.archive()
    with pytest.raises(AuditImpossible, match="set MICROFIN_ARCHIVES"):
        await audit(ledger.urls, since=True)


async def test_since_reads_the_archive_if_it_has_the_debit_of_what_was_under_way(
    archived: Archived,
) -> None:
    ledger = archived.ledger
    first, second = (ledger.open(ALICE, "EUR", partition) for partition in range(2))
    ledger.request("deposit", first, user=ALICE, amount="5")
    await ledger.drain()
    ledger.request("transfer", first, user=ALICE, amount="2", to=second)
    await ledger.settle(0)
    report = await audit(ledger.urls, since=True)
    assert (report.ok, report.in_transit.operations) == (True, 1)
    await ledger.turn()
    await ledger.drain()
    assert states(await archived.archive()) == [(0, "archived"), (1, "kept")]
    with pytest.raises(AuditImpossible, match="set MICROFIN_ARCHIVES"):
        await audit(ledger.urls, since=True)
    for mode in ("full", "since"):
        report = await audit(ledger.urls, since=True, archives=archived.urls)
        assert (report.ok, report.mode) == (True, mode), report.violations


async def accounts_of(archived: Archived) -> list[str]:
    """Return the accounts of partition 0, which are not frozen."""
    rows = await archived.rows("SELECT number FROM accounts WHERE state = 'open' ORDER BY number")
    return [row[0] for row in rows]


async def test_an_archive_that_is_ahead_is_no_violation(
    archived: Archived, monkeypatch: pytest.MonkeyPatch
) -> None:
    await some_history(archived.ledger)
    await archived.archive()
    first = (await accounts_of(archived))[0]
    archived.ledger.request("deposit", first, user=ALICE, amount="1")
    await archived.ledger.drain()
    await archived.ledger.turn()

    async def break_off(*_: Any) -> None:
        raise OSError("away")

    monkeypatch.setattr(job, "_drop", break_off)
    with pytest.raises(OSError, match="away"):
        await archived.archive()
    monkeypatch.undo()
    with pytest.raises(AuditImpossible, match="has volume 2, which has not left the ledger"):
        await audited(archived)
    await archived.archive()
    assert await audited(archived) == []


async def test_no_volume_leaves_between_an_audits_snapshot_and_its_first_look(
    archived: Archived, monkeypatch: pytest.MonkeyPatch
) -> None:
    await some_history(archived.ledger)
    look = AuditedShard.look_for_archive
    archiving: list[asyncio.Task[list[Moved]]] = []

    async def look_and_let_the_job_begin(shard: AuditedShard) -> None:
        await look(shard)
        archiving.append(asyncio.create_task(archived.archive()))
        await until_copied(archived)
        await asyncio.sleep(1)

    monkeypatch.setattr(AuditedShard, "look_for_archive", look_and_let_the_job_begin)
    assert await audited(archived) == []
    assert states(await archiving[0])[:2] == [(0, "archived"), (1, "archived")]
    monkeypatch.undo()
    assert await audited(archived) == []


UNLOCKED = "".join(
    f"ALTER TABLE {table} DISABLE TRIGGER USER;"
    for table in ("accounts", "outcomes", "entries", "contra_balances")
)
UNLOCKED_LEDGER = "".join(
    f"ALTER TABLE {table} DISABLE TRIGGER USER;"
    for table in (
        *("archived_accounts", "archived_contra_balances", "archived_partitions"),
        *("archived_volumes", "accounts", "outcomes", "entries"),
    )
)

CORRUPTIONS = {
    "an archived entry lost": (
        "archive",
        "DELETE FROM entries WHERE seq = 2 AND account = FIRST",
        {3, 4},
    ),
    "the last archived entry lost": (
        "archive",
        (
            "DELETE FROM entries WHERE account = FIRST"
            " AND seq = (SELECT seq FROM accounts WHERE number = FIRST)"
        ),
        {3, 4},
    ),
    "an archived outcome lost": ("archive", "DELETE FROM outcomes WHERE kind = 'deposit'", {4}),
    "an archived rejection changed": (
        "archive",
        "UPDATE outcomes SET counterparty = 'x' WHERE status = 'rejected'",
        {4},
    ),
    "an archived balance changed by one": (
        "ledger",
        "UPDATE archived_accounts SET balance = balance + 1 WHERE number = FIRST",
        {3},
    ),
    "an archived balance and the account changed by one": (
        "ledger",
        (
            "UPDATE archived_accounts SET balance = balance + 1 WHERE number = FIRST;"
            "UPDATE accounts SET balance = balance + 1 WHERE number = FIRST"
        ),
        {1, 3},
    ),
    "a balance in the archive changed by one": (
        "archive",
        "UPDATE accounts SET balance = balance + 1 WHERE number = FIRST",
        {1, 3},
    ),
    "an archived account lost": (
        "ledger",
        "DELETE FROM archived_accounts WHERE number = FIRST",
        {3},
    ),
    "an archived state changed": (
        "ledger",
        "UPDATE archived_accounts SET state = 'open' WHERE state = 'frozen'",
        {3, 4},
    ),
    "the state of an account changed that was set long ago": (
        "ledger",
        "UPDATE accounts SET state = 'open' WHERE state = 'frozen'",
        {4},
    ),
    "another owner of an account that was opened long ago": (
        "ledger",
        "UPDATE accounts SET owner = gen_random_uuid() WHERE number = FIRST",
        {4},
    ),
    "an archived contra balance changed": (
        "ledger",
        "UPDATE archived_contra_balances SET balance = balance + 1 WHERE contra = 'cash'",
        {1, 3},
    ),
    "a contra balance in the archive changed": (
        "archive",
        "UPDATE contra_balances SET balance = balance + 1 WHERE contra = 'cash'",
        {1, 3},
    ),
    "what a partition had decided changed": (
        "ledger",
        "UPDATE archived_partitions SET last_offset = last_offset - 1",
        {3},
    ),
    "a partition before what it had decided": (
        "ledger",
        "UPDATE partitions SET next_offset = 1 WHERE partition = 1",
        {4},
    ),
    "an archive of an older backup": (
        "archive",
        (
            "DELETE FROM outcomes WHERE volume = 2; DELETE FROM entries WHERE volume = 2;"
            "DELETE FROM volumes WHERE volume = 2"
        ),
        {3, 4},
    ),
    "a volume that never left the ledger": (
        "ledger",
        "DELETE FROM archived_volumes WHERE volume = 0",
        {4},
    ),
}


@pytest.mark.parametrize("name", CORRUPTIONS)
async def test_a_planted_corruption_of_either_side_is_found(
    half_archived: Archived, name: str
) -> None:
    side, statements, invariants = CORRUPTIONS[name]
    first = (await accounts_of(half_archived))[0]
    statements = statements.replace("FIRST", f"'{first}'")
    if side == "archive":
        await half_archived.archives[0].execute(UNLOCKED + statements)
    else:
        await half_archived.ledger.pools[0].execute(UNLOCKED_LEDGER + statements)
    found = await audited(half_archived)
    assert invariants <= {invariant for invariant, _ in found}, found


async def test_a_leg_that_is_archived_and_live_is_found(half_archived: Archived) -> None:
    ledger = half_archived.ledger
    (row,) = await half_archived.rows(
        "SELECT operation_id FROM outcomes WHERE kind = 'deposit' LIMIT 1", of_archive=True
    )
    record = await half_archived.archives[0].fetchval(
        "SELECT to_jsonb(o) FROM outcomes o WHERE operation_id = $1", row[0]
    )
    await ledger.pools[0].execute(
        "INSERT INTO outcomes SELECT (jsonb_populate_record(NULL::outcomes, $1::jsonb"
        " || jsonb_build_object('volume', (SELECT max(volume) FROM volumes)))).*",
        record,
    )
    found = await audited(half_archived)
    assert (4, "a leg is in the archive, and was decided elsewhere as well") in found


async def test_a_credit_that_is_archived_and_live_is_found(half_archived: Archived) -> None:
    record = await half_archived.archives[0].fetchval(
        "SELECT to_jsonb(o) FROM outcomes o WHERE leg = 'credit' AND status = 'settled' LIMIT 1"
    )
    await half_archived.ledger.pools[0].execute(
        "INSERT INTO outcomes SELECT (jsonb_populate_record(NULL::outcomes, $1::jsonb"
        " || jsonb_build_object('volume', (SELECT max(volume) FROM volumes)))).*",
        record,
    )
    found = await audited(half_archived)
    assert (4, "one leg has two outcomes") in found


async def test_a_debit_in_the_archive_and_its_credit_here_are_one_transfer(
    archived: Archived,
) -> None:
    """Also where they are of two volumes: the debit's leaves the ledger once it has arrived."""
    ledger = archived.ledger
    first, second = (ledger.open(ALICE, "EUR", partition) for partition in range(2))
    ledger.request("deposit", first, user=ALICE, amount="5")
    await ledger.drain()
    ledger.request("transfer", first, user=ALICE, amount="2", to=second)
    await ledger.settle(0)
    await ledger.turn()
    await ledger.drain()
    assert states(await archived.archive()) == [(0, "archived"), (1, "kept")]
    assert await audited(archived) == []


# Who else reads legs ------------------------------------------------------------------------------


async def test_a_recovery_looks_for_legs_in_the_archive(archived: Archived) -> None:
    """A credit whose debit is archived is no lost debit: sent again, it would take money twice."""
    ledger = archived.ledger
    first, second = (ledger.open(ALICE, "EUR", partition) for partition in range(2))
    ledger.request("deposit", first, user=ALICE, amount="5")
    await ledger.drain()
    moved = ledger.request("transfer", first, user=ALICE, amount="2", to=second)
    await ledger.settle(0)
    await ledger.turn()
    await ledger.drain()
    assert await incomplete_operations(ledger.urls, []) == []
    await archived.archive()
    with pytest.raises(AuditImpossible, match="legs that seem to be lost"):
        await incomplete_operations(ledger.urls, [])
    assert await incomplete_operations(ledger.urls, archived.urls) == []
    pools = [await connect_pool(url, CommonSettings()) for url in archived.urls]
    assert list(await stuck_transfers(ledger.pools, [moved], [])) == [moved]
    assert await stuck_transfers(ledger.pools, [moved], pools) == {}
    for pool in pools:
        await pool.close()


async def test_a_replay_of_what_the_archive_has_decided_is_refused(half_archived: Archived) -> None:
    ledger = half_archived.ledger
    (row,) = await half_archived.rows(
        "SELECT operation_id, account, counterparty, (extract(epoch FROM at) * 1000)::bigint"
        " FROM outcomes WHERE leg = 'credit' AND status = 'settled' LIMIT 1",
        of_archive=True,
    )
    command = Command(
        kind="transfer",
        leg="credit",
        operation=row[0].hex,
        account=row[1],
        counterparty=row[2],
        amount="2",
        currency="EUR",
    )
    record = QuarantinedRecord(
        shard=0,
        partition=1,
        offset=7,
        reason="",
        key=None,
        value=None,
        appended_at=row[3],
        replayed_at=None,
    )
    pools = [await connect_pool(url, CommonSettings()) for url in half_archived.urls]
    refused = await quarantine._why_not(ledger.pools, [], record, command)
    assert "set MICROFIN_ARCHIVES" in refused
    refused = await quarantine._why_not(ledger.pools, pools, record, command)
    assert "its credit was decided (settled)" in refused
    unknown = msgspec.structs.replace(command, operation=uuid4().hex)
    assert await quarantine._why_not(ledger.pools, pools, record, unknown) == ""
    young = msgspec.structs.replace(record, appended_at=row[3] + 10 * 24 * 60 * 60 * 1000)
    assert await quarantine._why_not(ledger.pools, [], young, unknown) == ""
    for pool in pools:
        await pool.close()


async def test_an_old_key_that_is_used_again_makes_another_operation(archived: Archived) -> None:
    """It has the id of the first. That is no violation, neither here nor in the archive later."""
    ledger = archived.ledger
    first, second = (ledger.open(ALICE, "EUR", partition) for partition in range(2))
    ledger.request("deposit", first, user=ALICE, amount="5")
    ledger.request("transfer", first, user=ALICE, amount="2", to=second)
    repeated = [record.command for record in list(ledger.logs[0])[-2:]]
    await ledger.drain()
    await ledger.turn()
    await archived.archive()
    ledger.time += 500 * 24 * 60 * 60 * 1000
    for command in repeated:
        ledger.append_to(0, command)
    await ledger.drain()
    (row,) = await archived.rows("SELECT sum(balance)::bigint FROM accounts")
    assert row == (1000,)
    assert await audited(archived) == []
    await ledger.turn()
    await archived.archive()
    assert await archived.by_volume() == {}
    assert await audited(archived) == []
