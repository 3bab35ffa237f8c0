"""Which holds the real store gives as due: those whose time is over by the broker's clock, too."""

from microfin_local.platform import Platform
from support.postgres_ledger import PostgresLedger, make_ledger_databases

_BY_A_SECOND = 1_000
"""Milliseconds: an end that comes too early has no effect, and is not tried again for long."""

# Ends from four seconds ago to four seconds from now, a hundred a second.
_HOLDS = """
INSERT INTO holds (operation_id, account, receiver, amount, amount_left, ends_at)
SELECT gen_random_uuid(), '100000000008', '', 5, 5,
    date_trunc('milliseconds', clock_timestamp()) + step * interval '10 milliseconds'
FROM generate_series(-400, 400) AS step
"""
_ENDS = "SELECT (extract(epoch FROM ends_at) * 1000)::bigint FROM holds"
_NOW = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint"


async def test_a_hold_is_due_a_second_after_its_time(platform: Platform) -> None:
    databases = await make_ledger_databases(platform, "due", 1, 1)
    urls = [platform.postgres_direct(0, database=it) for it in databases]
    async with PostgresLedger(urls, 1) as ledger:
        [pool], [store] = ledger.pools, ledger.stores
        await pool.execute(_HOLDS)
        before: int = await pool.fetchval(_NOW)
        due = {it.ends for it in (await store.due_holds(None, 1_000)).holds}
        after: int = await pool.fetchval(_NOW)
        ends = {row[0] for row in await pool.fetch(_ENDS)}
    assert due >= {it for it in ends if it < before - _BY_A_SECOND}
    assert due <= {it for it in ends if it <= after - _BY_A_SECOND}  # rounded to milliseconds
    assert due
