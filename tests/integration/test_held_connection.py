"""A worker's connection: the same one for each call, and a sound one after every error."""

import contextlib
from collections.abc import AsyncIterator

import asyncpg
import pytest

from microfin.postgres.connections import DATABASE_ERRORS, Pool, connect_pool
from microfin.postgres.held_connection import HeldConnection
from microfin.process.settings import CommonSettings
from microfin_local.platform import Platform
from support.waiting import until


@pytest.fixture
async def pool(platform: Platform) -> AsyncIterator[Pool]:
    made = await connect_pool(platform.postgres_direct(0), CommonSettings())
    yield made
    made.terminate()


async def backend_of(held: HeldConnection) -> int:
    """Return the process that serves the next call."""
    async with held.acquire() as connection:
        process: int = await connection.fetchval("SELECT pg_backend_pid()")
    return process


async def fail(held: HeldConnection) -> None:
    """Fail in a transaction that nobody ends."""
    async with held.acquire() as connection:
        await connection.execute("BEGIN")
        await connection.execute("SELECT 1 / 0")


async def test_it_is_kept_from_call_to_call(pool: Pool) -> None:
    held = HeldConnection(pool)
    assert len({await backend_of(held) for _ in range(5)}) == 1
    assert pool.get_size() - pool.get_idle_size() == 1


async def test_two_calls_at_once_have_two(pool: Pool) -> None:
    held = HeldConnection(pool)
    async with held.acquire() as first, held.acquire() as second:
        assert first.get_server_pid() != second.get_server_pid()
    await backend_of(held)
    assert pool.get_size() - pool.get_idle_size() == 1


async def test_one_that_was_broken_off_is_not_used_again(pool: Pool) -> None:
    held = HeldConnection(pool)
    ended = await backend_of(held)
    async with pool.acquire() as other:
        await other.execute("SELECT pg_terminate_backend($1)", ended)
    served = {ended}
    for _ in range(3):  # a call may fail, before the client has read that it was broken off
        with contextlib.suppress(*DATABASE_ERRORS):
            served.add(await backend_of(held))
    assert served - {ended}
    assert await backend_of(held) != ended


async def test_no_call_fails_for_one_that_ended_between_calls(pool: Pool) -> None:
    held = HeldConnection(pool)
    ended = await backend_of(held)
    async with pool.acquire() as other:
        await other.execute("SELECT pg_terminate_backend($1)", ended)
        await until("the client has read that it was broken off", lambda: pool.get_size() == 1)
    assert await backend_of(held) != ended


async def test_a_call_that_fails_leaves_no_transaction_open(pool: Pool) -> None:
    held = HeldConnection(pool)
    with pytest.raises(asyncpg.DivisionByZeroError):
        await fail(held)
    async with held.acquire() as connection:
        assert not connection.is_in_transaction()
        assert await connection.fetchval("SELECT 1") == 1


async def test_none_that_was_open_is_used_after_all_have_expired(pool: Pool) -> None:
    held = HeldConnection(pool)
    before = await backend_of(held)
    await held.expire_connections()
    assert await backend_of(held) != before
