"""A renewal of a lease asks PostgreSQL once, and a lease on a new connection soon exists.

A renewal and all that its connection needs first must end within the second for which a lease
counts. So where PostgreSQL is far away, each round trip of a new connection could cost the lease.
"""

import asyncio

from microfin_api.commands.leases import ShardLease
from support.api_under_test import Ledger
from support.round_trips import CountedWay

_OF_A_CONNECTION = 3  # PostgreSQL's own log-in: the password's two, and one until it is ready
_OF_THE_CHECK = 2  # types and row: which shard is it?
_OF_A_FIRST_RENEWAL = 2  # types and row


async def test_a_renewal_takes_one_round_trip_and_the_first_few_more(ledger: Ledger) -> None:
    url = ledger.platform.postgres_pooled(0, "microfin_api", ledger.databases[0])
    async with CountedWay(url) as way:
        lease = ShardLease("round trips", ledger.settings(databases=way.url), 0)
        async with asyncio.timeout(30):
            await lease.start()
            assert lease.valid() is not None, lease.fault
            first, taken = way.round_trips, []
            for _ in range(3):
                before = way.round_trips
                await lease.attempted()
                taken.append(way.round_trips - before)
            await lease.stop()
    assert taken == [1, 1, 1]
    assert first <= _OF_A_CONNECTION + _OF_THE_CHECK + _OF_A_FIRST_RENEWAL
