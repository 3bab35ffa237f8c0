"""A growth is activated while its intent is young, however often it waited for a lock."""

import asyncio
from functools import partial
from uuid import uuid4

import asyncpg
import pytest

from microfin.ledger.lease import ACTIVATION_LOCK_SECONDS, ACTIVATION_SECONDS, STALE_INTENT_SECONDS
from microfin.ledger.routing import Routing
from microfin_local.platform import Platform
from microfin_tools.growth.postgres_routing import NotActivated, PostgresRouting
from support.postgres_ledger import PostgresLedger, make_ledger_databases
from support.waiting import until

PARTITIONS = 3
CURRENT, INTENDED = Routing(1, PARTITIONS), Routing(2, PARTITIONS * 2)


async def waiting_for_a_lock(connection: asyncpg.Connection) -> bool:
    """Whether a session of this database waits for a lock."""
    query = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    return bool(await connection.fetchval(query))


async def test_an_intent_that_grew_stale_while_locks_were_awaited_is_not_activated(
    platform: Platform,
) -> None:
    """Each lock comes in time, all of them together do not (rule 3 of `microfin.ledger.lease`)."""
    (database,) = await make_ledger_databases(platform, f"activation_{uuid4().hex[:8]}", 1, 3)
    url = platform.postgres_direct(0, database=database)
    async with PostgresLedger([url], PARTITIONS) as ledger:
        (pool,) = ledger.pools
        routing = PostgresRouting(pool, 0)
        token = uuid4()
        await routing.prepare(CURRENT, INTENDED, token)
        owners = [await asyncpg.connect(url) for _ in range(PARTITIONS)]
        for partition, owner in enumerate(owners):
            await owner.execute("BEGIN")
            await owner.fetch("SELECT 1 FROM partitions WHERE partition = $1 FOR UPDATE", partition)
        young = ACTIVATION_SECONDS - 0.2 * ACTIVATION_LOCK_SECONDS
        await pool.execute(
            "UPDATE routing SET intended_at = clock_timestamp() - $1 * interval '1 second'", young
        )
        activation = asyncio.create_task(routing.activate(CURRENT, INTENDED, token, {}))
        for owner in owners:
            await until("the activation waits for the row", partial(waiting_for_a_lock, owner))
            await asyncio.sleep(0.6 * ACTIVATION_LOCK_SECONDS)
            await owner.execute("COMMIT")
            await owner.close()
        with pytest.raises(NotActivated, match="too old"):
            await activation
        assert (await routing.state()).routing == CURRENT
        age = await pool.fetchval(
            "SELECT extract(epoch FROM clock_timestamp() - intended_at)::float8 FROM routing"
        )
        assert age > STALE_INTENT_SECONDS, "the test held the rows for too short a time"
