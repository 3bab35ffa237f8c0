"""A sign-in asks PostgreSQL twice and Redis twice.

PostgreSQL for the user, and to open the session: each is one round trip, also behind a pooler that
knows no prepared statements. Redis before the user is read, and when the session is open. What an
attempt gives back travels with what the next one asks.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import groupby
from typing import Any
from uuid import uuid4

import pytest
from redis.crc import key_slot

from microfin.postgres.connections import connect_pool
from microfin.postgres.one_round_trip import OneRoundTrip
from microfin.redis.guarded import RedisUnavailable
from microfin.redis.node import Node, _Connection
from microfin_api.people import sign_in_rate
from support.api_under_test import PASSWORD, Api, Ledger, User, running
from support.round_trips import CountedWay
from support.waiting import until, until_true


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
    # All that this API asks goes this way: a pooler that keeps no statements loses those it keeps.
    async with running(ledger.settings(databases=url, database_statement_cache=kept)) as api:
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


async def test_redis_learns_of_attempt_and_session_at_once(
    api: Api, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    ask_redis, ask_postgresql = Node.ask, OneRoundTrip.fetch_at_once

    async def count_redis(node: Node, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        asked.extend("Redis" for command in commands if command[0] == "EVALSHA")
        return await ask_redis(node, commands)

    async def count_postgresql(connection: OneRoundTrip, statement: str, *values: Any) -> Any:
        rows = await ask_postgresql(connection, statement, *values)
        if "FROM users" in statement or "open_session" in statement:  # leases ask too
            asked.append("PostgreSQL")
        return rows

    monkeypatch.setattr(Node, "ask", count_redis)
    monkeypatch.setattr(OneRoundTrip, "fetch_at_once", count_postgresql)
    async with api.client() as client:
        credentials = {"email": user.email, "password": PASSWORD}
        assert (await client.post("/api/signin", json=credentials)).status_code == 200
    # Three limits are acquired and released, and the session is cached.
    await until_true(lambda: asked.count("Redis") >= 7)
    assert [of for of, _ in groupby(asked)] == ["Redis", "PostgreSQL", "Redis"]
    assert (asked.count("Redis"), asked.count("PostgreSQL")) == (7, 2)


async def until_none_is_counted(api: Api, key: str) -> None:
    async def is_given_back() -> bool:
        return await api.services.redis.get(key) is None

    # What is not given back is counted until the window of a minute ends.
    await until("no counter", is_given_back, 30, not_yet=(RedisUnavailable,))


async def test_what_is_given_back_travels_with_the_next_attempt(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sign_in_rate, "_GIVE_BACK_WITHIN", 5.0, raising=False)  # not alone
    rate = api.services.sign_in_rate
    limits = [
        *rate.of_address("192.0.2.77"),
        *rate.of_stranger(f"{uuid4().hex}@example.com", "192.0.2.77"),
    ]
    nodes = {await api.services.redis._owner(limit.key) for limit in limits}
    written: list[_Connection] = []
    send = _Connection._send

    def count(connection: _Connection) -> None:
        if any(b"EVALSHA" in command for command in connection._unsent):
            written.append(connection)
        send(connection)

    monkeypatch.setattr(_Connection, "_send", count)
    for _ in range(3):
        with rate.attempt("too_many_sign_ins") as attempt:
            await attempt.acquire(limits)
    await asyncio.gather(*rate._releases._tasks)
    assert len(written) == 3 * len(nodes)


async def test_what_was_acquired_is_given_back_soon(api: Api) -> None:
    rate = api.services.sign_in_rate
    limits = rate.of_user(uuid4().hex)
    with rate.attempt("too_many_sign_ins") as attempt:
        await attempt.acquire(limits)
    await until_none_is_counted(api, limits[0].key)


async def test_a_process_that_ends_gives_back_what_it_has_acquired(
    ledger: Ledger, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sign_in_rate, "_GIVE_BACK_WITHIN", 5.0)
    async with running(ledger.settings()) as ending:
        rate = ending.services.sign_in_rate
        limits = rate.of_user(uuid4().hex)
        with rate.attempt("too_many_sign_ins") as attempt:
            await attempt.acquire(limits)
    await until_none_is_counted(api, limits[0].key)


async def test_the_answer_does_not_wait_until_the_session_is_cached(
    api: Api, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(*_: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(api.services.sessions._cache, "put", hang)
    async with asyncio.timeout(30), api.client() as client:
        credentials = {"email": user.email, "password": PASSWORD}
        assert (await client.post("/api/signin", json=credentials)).status_code == 200


def test_the_limits_of_an_address_travel_together(api: Api) -> None:
    pair, email = api.services.sign_in_rate.of_stranger("anna@example.com", "192.0.2.1")
    assert pair.key != email.key
    assert key_slot(pair.key.encode()) == key_slot(email.key.encode())
