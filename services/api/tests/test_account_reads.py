"""Reads of accounts share one read of PostgreSQL, but none that began before they came."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio

from microfin_api.account_reads import MOST_AT_ONCE, REMEMBERED_SECONDS, AccountReads
from support.api_under_test import Api, Ledger, User, running
from support.clocks import HandClock
from support.waiting import until_true


class Gate:
    """A pool that keeps what a read has brought until the test lets it go."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self.open = asyncio.Event()
        self.open.set()
        self.fault: Exception | None = None
        self.reads: list[list[str]] = []
        self.brought = 0

    async def acquire(self) -> "Gate":
        return self

    async def release(self, _connection: object) -> None:
        return None

    def is_closed(self) -> bool:
        return False

    async def fetch_at_once(self, statement: str, numbers: list[str]) -> list[Any]:
        self.reads.append(numbers)
        if self.fault is not None:
            raise self.fault
        async with self._pool.acquire() as connection:
            rows: list[Any] = await connection.fetch_at_once(statement, numbers)
        self.brought += 1
        await self.open.wait()
        return rows


@pytest_asyncio.fixture
async def gate(api: Api) -> Gate:
    return Gate(api.services.pools[0])


@contextlib.asynccontextmanager
async def held_back(reads: AccountReads, gate: Gate, number: str) -> AsyncIterator[Any]:
    """Begin a read, and keep what it has brought until the block ends or opens the gate."""
    gate.open.clear()
    reading = asyncio.create_task(reads.read(number))
    await until_true(lambda: gate.brought)
    try:
        yield reading
    finally:
        gate.open.set()
        await reading


async def seq_of(reads: AccountReads, number: str) -> int:
    found = await reads.read(number)
    assert found is not None
    return found.seq


async def test_who_comes_while_a_read_is_under_way_takes_the_next(gate: Gate, user: User) -> None:
    number, reads = await user.account(balance="5"), AccountReads([gate])
    async with held_back(reads, gate, number) as earlier:
        await user.deposit(number, "1")  # its answer is there, the read has brought what was before
        later = asyncio.create_task(seq_of(reads, number))
        await asyncio.sleep(0)
        gate.open.set()
        assert await later == 2
    assert (await earlier).seq == 1


async def test_requests_that_come_together_are_one_read(gate: Gate, user: User) -> None:
    numbers, reads = [await user.account() for _ in range(3)], AccountReads([gate])
    found = await asyncio.gather(*(reads.read(number) for number in numbers * 20))
    assert [it and it.number for it in found] == numbers * 20
    assert [sorted(asked) for asked in gate.reads] == [sorted(numbers)]


async def test_a_read_has_a_limit(gate: Gate) -> None:
    reads = AccountReads([gate])
    nobodys = [f"{number:012d}" for number in range(MOST_AT_ONCE + 1)]
    assert set(await asyncio.gather(*map(reads.read, nobodys))) == {None}
    assert [len(asked) for asked in gate.reads] == [MOST_AT_ONCE, 1]


async def test_a_read_that_hangs_stops_nobody_else(gate: Gate, user: User) -> None:
    number, reads = await user.account(balance="5"), AccountReads([gate])
    async with held_back(reads, gate, number) as hanging:
        asked = asyncio.create_task(seq_of(reads, number))
        await until_true(lambda: gate.brought == 2)
        assert not hanging.done()
    assert await asked == 1


async def test_who_goes_away_takes_the_answer_from_nobody(gate: Gate, user: User) -> None:
    number, reads = await user.account(balance="5"), AccountReads([gate])
    async with held_back(reads, gate, number) as leaving:
        next_ones = [asyncio.create_task(seq_of(reads, number)) for _ in range(2)]
        await asyncio.sleep(0)
        next_ones[0].cancel()
        gate.open.set()
        assert await next_ones[1] == 1
        await leaving


async def test_all_who_wait_get_a_failure_and_the_next_read_goes_on(gate: Gate, user: User) -> None:
    number, reads = await user.account(balance="5"), AccountReads([gate])
    gate.fault = ConnectionRefusedError("planted")
    got = await asyncio.gather(*(reads.read(number) for _ in range(3)), return_exceptions=True)
    assert [type(it) for it in got] == [ConnectionRefusedError] * 3
    gate.fault = None
    assert await seq_of(reads, number) == 1


async def test_owner_and_currency_are_remembered_and_the_balance_is_not(
    gate: Gate, user: User
) -> None:
    clock = HandClock()
    number, reads = await user.account(), AccountReads([gate], clock=clock.monotonic)
    for reads_so_far in (1, 1):
        identity = await reads.identity(number)
        assert identity is not None
        assert (identity.owner, identity.currency) == (user.id, "EUR")
        assert len(gate.reads) == reads_so_far
    await reads.read(number)
    assert len(gate.reads) == 2
    clock.milliseconds += int(REMEMBERED_SECONDS * 1000) + 1
    await reads.identity(number)
    assert len(gate.reads) == 3


async def test_an_account_that_is_not_there_is_not_remembered(gate: Gate) -> None:
    """It may be opened at any moment."""
    reads = AccountReads([gate])
    for _ in range(2):
        assert await reads.identity("000000000000") is None
    assert len(gate.reads) == 2


async def test_reads_keep_no_connection_that_others_have_none_without(ledger: Ledger) -> None:
    async with running(ledger.settings(database_connections=1)) as api:
        user = await api.user()
        number = await user.account()
        for path in (f"/api/accounts/{number}", "/api/accounts", f"/api/accounts/{number}"):
            assert (await user.client.get(path)).status_code == 200, path
