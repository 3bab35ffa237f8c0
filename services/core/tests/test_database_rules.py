"""What the database itself refuses or ends, whoever asks: see docs/adr/0008-fencing.md."""

import asyncpg
import pytest
from postgres_ledger import make_ledger_databases

from microfin.database import connect_pool
from microfin.settings import CommonSettings
from microfin_local.platform import Platform


@pytest.mark.parametrize("table", ["outcomes", "entries"])
@pytest.mark.parametrize("change", ["UPDATE {} SET account = account", "DELETE FROM {}"])
async def test_what_is_written_for_good_stays_for_its_owner_too(
    platform_parts: Platform, table: str, change: str
) -> None:
    name = f"rules_{table}_{change[:6].lower()}"
    (database,) = await make_ledger_databases(platform_parts, name, 1, 1)
    url = platform_parts.postgres_direct(0, database=database)
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
    platform_parts: Platform, role: str, limits: dict[str, str]
) -> None:
    (database,) = await make_ledger_databases(platform_parts, f"rules_{role}", 1, 1)
    url = platform_parts.environment(role, database, "unused")["MICROFIN_DATABASES"]
    pool = await connect_pool(url, CommonSettings())
    try:
        async with pool.acquire() as connection, connection.transaction():
            for name, limit in limits.items():
                assert await connection.fetchval(f"SHOW {name}_timeout") == limit
            keepalives = "SELECT reset_val FROM pg_settings WHERE name = 'tcp_keepalives_idle'"
            assert await connection.fetchval(keepalives) == "5"
    finally:
        pool.terminate()
