"""A database that is lost in the middle of a request: come back later, but never a 500."""

from typing import Any

import asyncpg
import pytest

from support.api_under_test import Ledger, running

LOSSES = [
    ConnectionResetError("reset"),
    TimeoutError(),
    asyncpg.InterfaceError("connection is closed"),
    asyncpg.InternalClientError("cannot switch to state 15; another operation (2) is in progress"),
    asyncpg.AdminShutdownError("terminating connection"),
]


class LostPool:
    """Has no connection to give."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def acquire(self) -> None:
        raise self._error


@pytest.mark.parametrize("error", LOSSES, ids=lambda it: type(it).__name__)
async def test_a_lost_database_is_503(ledger: Ledger, error: Exception) -> None:
    async with running(ledger.settings()) as api:
        user = await api.user()
        number = await user.account()
        before = await user.client.get(f"/api/accounts/{number}/entries")
        assert before.status_code == 200
        pools: list[Any] = api.services.pools  # the list is shared by all who look something up
        pools[0], lent = LostPool(error), pools[0]
        try:
            path = f"/api/accounts/{number}"
            answers = [await user.client.get(f"{path}{rest}") for rest in ("", "/entries")]
        finally:
            pools[0] = lent
    for answer in answers:
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        assert answer.headers["retry-after"]
