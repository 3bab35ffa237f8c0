"""A sign-in asks PostgreSQL twice: for the user, and to open the session.

Each of the two is one round trip, also behind a pooler that knows no prepared statements.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from microfin.postgres.connections import connect_pool
from support.api_under_test import PASSWORD, Api, Ledger, running
from support.round_trips import CountedWay


@asynccontextmanager
async def counted(api: Api, url: str) -> AsyncIterator[CountedWay]:
    """Count the round trips of all that has to do with people; leases go another way."""
    services = api.services
    async with CountedWay(url) as way:
        pool = await connect_pool(way.url, api.settings)
        services.users._pool = services.sessions._pool = services.sessions._store._pool = pool
        services.pools[0] = pool
        yield way
        pool.terminate()


POOLERS = ["PgBouncer", "a pooler that keeps statements"]


@pytest.mark.parametrize("pooler", POOLERS)
async def test_a_sign_in_takes_two_round_trips(ledger: Ledger, pooler: str) -> None:
    platform, database = ledger.platform, ledger.databases[0]
    if pooler == "PgBouncer":
        url, kept = platform.postgres_pooled(0, "microfin_api", database), 0
    else:  # without one: this PgBouncer knows no prepared statements
        url, kept = platform.postgres_direct(0, "microfin_api", database), 100
    async with running(ledger.settings(database_statement_cache=kept)) as api:
        user = await api.user()
        credentials = {"email": user.email, "password": PASSWORD}
        async with counted(api, url) as way, api.client() as client:
            taken = []
            for _ in range(5):
                before = way.round_trips
                answer = await client.post("/api/signin", json=credentials)
                assert answer.status_code == 200, answer.text
                taken.append(way.round_trips - before)
            # A new connection compares the schema, and PostgreSQL describes each statement once.
            assert taken[1:] == [2, 2, 2, 2], taken


async def test_a_session_that_is_not_cached_takes_one_round_trip(ledger: Ledger) -> None:
    url = ledger.platform.postgres_pooled(0, "microfin_api", ledger.databases[0])
    async with running(ledger.settings(redis="redis://127.0.0.1:1")) as api:
        user = await api.user()
        async with counted(api, url) as way:
            taken = []
            for _ in range(3):
                before = way.round_trips
                assert await api.services.sessions.find(user.session_id) is not None
                taken.append(way.round_trips - before)
            assert taken[1:] == [1, 1], taken
