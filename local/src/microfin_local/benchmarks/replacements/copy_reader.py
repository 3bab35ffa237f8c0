"""`fetch_first_row` beside asyncpg's `fetchrow`: a row for a statement without parameters.

Through a real PgBouncer in transaction mode that cannot prepare statements. There `fetchrow` needs
a transaction around it, because it asks twice: four round trips, where COPY takes one.
"""

import tempfile
import time
from pathlib import Path
from typing import Any, Final

from microfin.postgres.connections import Pool, connect_pool
from microfin.process.settings import ApiSettings
from microfin_api.commands.one_round_trip import fetch_first_row
from microfin_local.benchmarks.replacements.side_by_side import Measure, compare
from microfin_local.configuration import Configuration
from microfin_local.platform import Platform

_STATEMENTS: Final = 1_000
_STATEMENT: Final = "SELECT count(*) FROM pg_class WHERE oid < 100"


async def measure_copy_reader(runs: int, statements: int = _STATEMENTS) -> dict[str, Any]:
    """Return the microseconds until the row is there, and those of this process's CPU."""
    with tempfile.TemporaryDirectory(prefix="microfin-bench-") as folder:
        configuration = Configuration(
            state=Path(folder), components=frozenset({"postgres", "pgbouncer"}), random_ports=True
        )
        async with Platform(configuration) as platform:
            url = platform.postgres_pooled(0, "microfin_api")
            settings = ApiSettings(databases=url, database_connections=1)
            pool = await connect_pool(url, settings)
            try:
                return await _compare(pool, runs, statements)
            finally:
                await pool.close()


async def _compare(pool: Pool, runs: int, statements: int) -> dict[str, Any]:
    async def by_copy() -> int:
        async with pool.acquire() as connection:
            row = await fetch_first_row(connection, _STATEMENT)
        return int.from_bytes(row[0]) if row else -1

    async def by_fetchrow() -> int:
        async with pool.acquire() as connection, connection.transaction():
            return int((await connection.fetchrow(_STATEMENT))[0])

    if await by_copy() != await by_fetchrow():
        raise RuntimeError("the two ways return different rows")

    def repeated(read: Any, clock: Any) -> Measure:
        async def measure() -> float:
            began = clock()
            for _ in range(statements):
                await read()
            return 1_000_000 * float(clock() - began) / statements

        return measure

    return {
        name: await compare(repeated(by_copy, clock), repeated(by_fetchrow, clock), runs=runs)
        for name, clock in (("elapsed", time.perf_counter), ("cpu", time.process_time))
    }
