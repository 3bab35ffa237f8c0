"""Requests that move money query PostgreSQL for nothing."""

from typing import Any

from microfin_api.middleware import RequestMiddleware
from support.api_under_test import Api, Ledger, running


class CountedPool:
    """A pool that counts how often it is asked for a connection."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self.acquired = 0

    def acquire(self, **arguments: Any) -> Any:
        self.acquired += 1
        return self._pool.acquire(**arguments)

    def terminate(self) -> None:
        self._pool.terminate()


def count_calls(api: Api) -> CountedPool:
    """Count what this API's endpoints ask of PostgreSQL; leases have connections of their own."""
    services = api.services
    counted = CountedPool(services.pools[0])
    services.pools = services.waiting._pools = services.account_cap._pools = [counted]
    services.sessions._store._pool = services.users._pool = counted  # type: ignore[assignment]
    return counted


async def test_the_hot_path_makes_no_call_to_postgresql(ledger: Ledger) -> None:
    # Look-ups of slow operations do not belong to the hot path, and this machine may be busy.
    async with running(ledger.settings(look_up_after=4.0)) as api:
        assert isinstance(api.app, RequestMiddleware)
        user = await api.user()
        sender = await user.account(balance="100")
        receivers = [await user.account() for _ in range(4)]
        counted = count_calls(api)
        cached = await user.client.get("/api/me")
        assert cached.status_code == 200
        counted.acquired = 0
        for receiver in receivers:
            movements = [
                ("/api/deposit", {"accountNumber": sender, "amount": "2"}),
                ("/api/withdraw", {"accountNumber": sender, "amount": 1}),
                (
                    "/api/transfer",
                    {
                        "senderAccountNumber": sender,
                        "receiverAccountNumber": receiver,
                        "amount": "1",
                    },
                ),
            ]
            for number, (path, body) in enumerate(movements):
                headers = {"Idempotency-Key": f"{receiver} {number}"}
                answer = await user.client.post(path, json=body, headers=headers)
                assert answer.status_code in (200, 201)
        rejected = {"accountNumber": sender, "amount": "1000"}
        answer = await user.client.post("/api/withdraw", json=rejected)
        assert answer.status_code == 422
        accepted = {"Prefer": "respond-async"}
        answer = await user.client.post("/api/withdraw", json=rejected, headers=accepted)
        assert answer.status_code == 202
        assert counted.acquired == 0
        shown = await user.client.get(f"/api/accounts/{sender}")
        assert shown.json()["balance"] == "100.00"


async def test_opening_accounts_asks_once_how_many_there_are(ledger: Ledger) -> None:
    async with running(ledger.settings(look_up_after=4.0)) as api:
        user = await api.user()
        assert (await user.client.get("/api/me")).status_code == 200  # this caches the session
        counted = count_calls(api)
        for _ in range(3):
            await user.account()
            assert counted.acquired == 1


async def test_a_forged_session_makes_no_call_at_all(ledger: Ledger) -> None:
    async with running(ledger.settings()) as api:
        counted = count_calls(api)
        async with api.client(Authorization=f"Bearer {'A' * 48}") as client:
            assert (await client.get("/api/me")).status_code == 401
        assert counted.acquired == 0
