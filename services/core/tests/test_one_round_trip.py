"""Statements in one round trip, through PgBouncer: their types are remembered, and learned anew."""

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import asyncpg
import pytest
import pytest_asyncio

from microfin.postgres.connections import Pool, connect_pool
from microfin.process.settings import CommonSettings
from microfin_local.platform import Platform
from support.round_trips import CountedWay


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def database(platform: Platform) -> str:
    name = f"trips_{uuid4().hex[:10]}"
    await platform.create_database(name)
    return name


@pytest_asyncio.fixture
async def way(platform: Platform, database: str) -> AsyncIterator[CountedWay]:
    async with CountedWay(platform.postgres_pooled(0, "microfin", database)) as way:
        yield way


@pytest_asyncio.fixture
async def pool(way: CountedWay) -> AsyncIterator[Pool]:
    pool = await connect_pool(way.url, CommonSettings(database_connections=8))
    yield pool
    pool.terminate()


async def test_only_the_first_call_of_a_statement_takes_more(way: CountedWay, pool: Pool) -> None:
    taken = []
    for value in range(3):
        async with pool.acquire() as connection:
            before = way.round_trips
            row = await connection.fetch_first("SELECT $1::int + 1, $2::text", value, "it's")
            taken.append(way.round_trips - before)
        assert tuple(row) == (value + 1, "it's")
    assert taken[1:] == [1, 1], taken


async def test_each_is_a_transaction_of_its_own_or_part_of_the_one_that_has_begun(
    pool: Pool,
) -> None:
    async with pool.acquire() as connection:
        await connection.execute("CREATE TABLE kept (value integer)")
        for _ in range(2):
            await connection.fetch_at_once("INSERT INTO kept VALUES ($1)", 1)
        transaction = connection.transaction()
        await transaction.start()
        await connection.fetch_at_once("INSERT INTO kept VALUES ($1)", 1)
        await transaction.rollback()
    async with pool.acquire() as connection:
        assert await connection.fetch_first("SELECT 1 FROM kept WHERE value = $1", 2) is None
        [row] = await connection.fetch_at_once("SELECT count(*) FROM kept")
    assert row[0] == 2


async def test_many_at_once_share_the_servers_of_a_pooler(pool: Pool) -> None:
    async def ask(number: int) -> bool:
        async with pool.acquire() as connection:
            if number % 2:
                row = await connection.fetch_first("SELECT $1::text AS it", str(number))
                return bool(row["it"] == str(number))
            row = await connection.fetch_first("SELECT $1::bigint AS it, pg_sleep(0.001)", number)
            return bool(row["it"] == number)

    assert all(await asyncio.gather(*map(ask, range(200))))


async def test_types_that_have_changed_are_learned_anew(pool: Pool) -> None:
    statement = "SELECT value FROM changing WHERE value::text = $1"
    async with pool.acquire() as connection:
        await connection.execute("CREATE TABLE changing (value integer)")
        await connection.execute("INSERT INTO changing VALUES (7)")
        assert (await connection.fetch_first(statement, "7"))["value"] == 7
        await connection.execute("DROP TABLE changing")
        for _ in range(2):
            with pytest.raises(asyncpg.UndefinedTableError):
                await connection.fetch_first(statement, "7")
        await connection.execute("CREATE TABLE changing (value text)")
        await connection.execute("INSERT INTO changing VALUES ('7')")
        assert (await connection.fetch_first(statement, "7"))["value"] == "7"


async def test_a_call_that_takes_too_long_ends_and_the_pool_lives_on(way: CountedWay) -> None:
    settings = CommonSettings(database_connections=1, database_timeout=0.5)
    pool = await connect_pool(way.url, settings)
    for _ in range(2):
        async with pool.acquire() as connection:
            assert (await connection.fetch_first("SELECT $1::int", 1))[0] == 1
            with pytest.raises(TimeoutError):
                await connection.fetch_first("SELECT pg_sleep($1)", 30)
    pool.terminate()
