"""`OneRoundTrip` beside asyncpg's `fetchrow`: a row for a statement with a parameter.

Through a real PgBouncer in transaction mode that cannot prepare statements. There `fetchrow` asks
twice, for the types and for the row; in a transaction, as calls of several statements are, that is
four round trips.
"""

import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from microfin.postgres.connections import Pool, connect_pool
from microfin.process.settings import ApiSettings
from microfin_local.benchmarks.replacements.side_by_side import Measure, compare
from microfin_local.configuration import Configuration
from microfin_local.platform import Platform

_STATEMENTS: Final = 1_000
_STATEMENT: Final = "SELECT count(*) FROM pg_class WHERE oid < $1"
_VALUE: Final = 100

_CLOCKS: Final = {"elapsed": time.perf_counter, "cpu": time.process_time}


async def measure_one_round_trip(runs: int, statements: int = _STATEMENTS) -> dict[str, Any]:
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
    async def at_once() -> int:
        async with pool.acquire() as connection:
            return int((await connection.fetch_first(_STATEMENT, _VALUE))[0])

    async def by_fetchrow() -> int:
        async with pool.acquire() as connection:
            return int((await connection.fetchrow(_STATEMENT, _VALUE))[0])

    async def in_a_transaction() -> int:
        async with pool.acquire() as connection, connection.transaction():
            return int((await connection.fetchrow(_STATEMENT, _VALUE))[0])

    if len({await at_once(), await by_fetchrow(), await in_a_transaction()}) != 1:
        raise RuntimeError("the ways return different rows")

    def repeated(read: Callable[[], Awaitable[int]], clock: Callable[[], float]) -> Measure:
        async def measure() -> float:
            began = clock()
            for _ in range(statements):
                await read()
            return 1_000_000 * (clock() - began) / statements

        return measure

    return {
        way: {
            name: await compare(repeated(at_once, clock), repeated(theirs, clock), runs=runs)
            for name, clock in _CLOCKS.items()
        }
        for way, theirs in (("fetchrow", by_fetchrow), ("in_a_transaction", in_a_transaction))
    }
