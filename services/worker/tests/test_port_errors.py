"""Which errors of the database the worker receives as errors of its port."""

import asyncpg
import pytest

from microfin.postgres.shards import NotMigrated, WrongShard
from microfin_worker.ports import (
    DataRefused,
    Fenced,
    StoreNotReady,
    StoreUnavailable,
    WrongStore,
    origin,
)
from microfin_worker.postgres_store import PostgresStore


class FailingPool:
    """Raises `error` in place of a connection."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def acquire(self) -> object:
        raise self._error

    async def expire_connections(self) -> None:
        """There are none."""


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (asyncpg.CheckViolationError("balance"), DataRefused),
        (asyncpg.NumericValueOutOfRangeError("too large"), DataRefused),
        (asyncpg.ReadOnlySQLTransactionError("demoted"), StoreUnavailable),
        (asyncpg.AdminShutdownError("shut down"), StoreUnavailable),
        (asyncpg.InterfaceError("closed"), StoreUnavailable),
        (ConnectionResetError("reset"), StoreUnavailable),
        (TimeoutError("late"), StoreUnavailable),
        (WrongShard("shard 1 of 2"), WrongStore),
        (NotMigrated("no ledger"), StoreNotReady),
    ],
)
async def test_the_store_translates_what_the_worker_distinguishes(
    error: Exception, expected: type[Exception]
) -> None:
    store = PostgresStore(FailingPool(error), 0, 1)
    with pytest.raises(expected, match=str(error)) as raised:
        await store.idle_seconds()
    assert origin(raised.value) is error
    with pytest.raises(expected):
        async with store.transaction():
            pass


@pytest.mark.parametrize(
    "error", [asyncpg.UndefinedTableError("no table"), Fenced("another epoch"), ValueError("ours")]
)
async def test_the_store_raises_other_errors_as_they_are(error: Exception) -> None:
    store = PostgresStore(FailingPool(error), 0, 1)
    with pytest.raises(type(error)) as raised:
        await store.claim()
    assert raised.value is error
    assert origin(error) is error
