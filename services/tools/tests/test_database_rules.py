"""What the database itself refuses or ends, whoever asks: see docs/adr/0008-fencing.md."""

import asyncio

import asyncpg
import pytest

from microfin.postgres.connections import connect_pool
from microfin.process.settings import CommonSettings
from microfin_local.platform import Platform
from microfin_tools.migrations.run import migrate
from support.postgres_ledger import make_ledger_databases


@pytest.mark.parametrize("table", ["outcomes", "entries"])
@pytest.mark.parametrize("change", ["UPDATE {} SET account = account", "DELETE FROM {}"])
async def test_what_is_written_for_good_stays_for_its_owner_too(
    platform: Platform, table: str, change: str
) -> None:
    name = f"rules_{table}_{change[:6].lower()}"
    (database,) = await make_ledger_databases(platform, name, 1, 1)
    url = platform.postgres_direct(0, database=database)
    connection = await asyncpg.connect(url, ssl=False)
    try:
        for statement in (change.format(table), f"TRUNCATE {table}"):
            with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="append-only"):
                await connection.execute(statement)
    finally:
        await connection.close()


@pytest.mark.parametrize(
    ("role", "limits"),
    [
        ("worker", {"idle_in_transaction_session": "2s", "statement": "10s", "lock": "8s"}),
        ("api", {"idle_in_transaction_session": "2s", "statement": "5s"}),
    ],
)
async def test_a_frozen_process_cannot_hold_its_locks(
    platform: Platform, role: str, limits: dict[str, str]
) -> None:
    (database,) = await make_ledger_databases(platform, f"rules_{role}", 1, 1)
    url = platform.environment(role, database, "unused")["MICROFIN_DATABASES"]
    pool = await connect_pool(url, CommonSettings())
    try:
        async with pool.acquire() as connection, connection.transaction():
            for name, limit in limits.items():
                assert await connection.fetchval(f"SHOW {name}_timeout") == limit
            keepalives = "SELECT reset_val FROM pg_settings WHERE name = 'tcp_keepalives_idle'"
            assert await connection.fetchval(keepalives) == "5"
    finally:
        pool.terminate()


async def test_migrations_at_one_time_wait_for_each_other(platform: Platform) -> None:
    await platform.create_database("rules_migrated_at_once")
    urls = [platform.postgres_direct(0, database="rules_migrated_at_once")]
    migrated = await asyncio.gather(*(asyncio.to_thread(migrate, urls, 1) for _ in range(4)))
    assert migrated == [migrated[0]] * 4


async def test_a_statement_through_the_pooler_is_one_transaction(platform: Platform) -> None:
    """PgBouncer adds none of its own, such as a SET of what it takes for another encoding."""
    (database,) = await make_ledger_databases(platform, "rules_pooled", 1, 1)
    url = platform.environment("worker", database, "unused")["MICROFIN_DATABASES"]
    owner = await asyncpg.connect(platform.postgres_direct(0, database=database), ssl=False)
    pool = await connect_pool(url, CommonSettings(database_connections=1))

    async def committed() -> int:
        """What PostgreSQL has counted; it does so with a statement that comes a second later."""
        await asyncio.sleep(1.1)
        async with pool.acquire() as connection:
            await connection.execute("SELECT 1")
        await owner.execute("SELECT pg_stat_clear_snapshot()")
        count: int = await owner.fetchval(
            "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
        )
        return count

    try:
        before = await committed()
        for _ in range(100):
            async with pool.acquire() as connection:
                await connection.execute("SELECT 1")
        assert 100 <= await committed() - before < 150
    finally:
        await owner.close()
        pool.terminate()
