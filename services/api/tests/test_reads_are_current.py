"""Who has an answer never reads an older balance: by no API process, whatever Redis holds."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from microfin.redis.account_cache import AccountCache, CachedAccount, account_seal
from microfin.redis.seal import is_fresh
from support.api_under_test import Api, Ledger, User, running


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def another(ledger: Ledger) -> AsyncIterator[Api]:
    """Give a second API process of the same bank."""
    async with running(ledger.settings()) as api:
        yield api


def at(api: Api, user: User) -> httpx.AsyncClient:
    """Return a client of that process, as the same user."""
    return api.client(Authorization=f"Bearer {user.session_id}")


async def shown(client: httpx.AsyncClient, number: str) -> dict[str, Any]:
    answer = await client.get(f"/api/accounts/{number}")
    assert answer.status_code == 200, answer.text
    account: dict[str, Any] = answer.json()
    return account


async def plant(ledger: Ledger, api: Api, old: CachedAccount) -> None:
    """Leave a copy in Redis as a worker's that was put before a write that was lost."""
    await AccountCache(api.services.redis, account_seal(ledger.settings().cache_secret)).put([old])


async def test_each_process_shows_what_any_process_has_answered(user: User, another: Api) -> None:
    sender, receiver = await user.account(balance="100"), await user.account()
    async with at(another, user) as client:
        clients = (user.client, client)
        for turn in range(20):
            writes, reads = clients[turn % 2], clients[1 - turn % 2]
            body = {"senderAccountNumber": sender, "receiverAccountNumber": receiver, "amount": "1"}
            settled = await writes.post("/api/transfer", json=body)
            assert (settled.status_code, settled.json()["status"]) == (200, "settled")
            for client_of_either in (reads, writes):  # what they keep is there at the next turn
                assert (await shown(client_of_either, sender))["balance"] == f"{99 - turn}.00"
                assert (await shown(client_of_either, receiver))["balance"] == f"{1 + turn}.00"


async def test_an_old_copy_in_redis_is_shown_by_nobody(
    ledger: Ledger, api: Api, user: User, another: Api
) -> None:
    number = await user.account(balance="5")
    await plant(ledger, api, CachedAccount(number, user.id, "EUR", 999, "frozen", 9, 99))
    async with at(another, user) as client:
        for reader in (user.client, client):
            account = await shown(reader, number)
            assert (account["balance"], account["state"], account["seq"]) == ("5.00", "open", 1)


@pytest.mark.parametrize("rest", ["", "/entries", "/entries?at=2026-01-01T00:00:00Z"])
async def test_an_owner_in_redis_is_believed_by_nobody(
    ledger: Ledger, api: Api, user: User, rest: str
) -> None:
    """Not even with the seal that workers make: a program that has it sees no more than its own."""
    victim = await api.user()
    number = await victim.account(balance="5")
    await plant(ledger, api, CachedAccount(number, user.id, "EUR", 500, "open", 1, 99))
    path = f"/api/accounts/{number}{rest}"
    answer = await user.client.get(path)
    assert (answer.status_code, answer.json()["code"]) == (404, "account_not_found")
    assert (await victim.client.get(path)).status_code == 200


@pytest.mark.parametrize("setting", ["always", "never"])
async def test_a_worker_writes_copies_for_the_release_before_only(
    ledger: Ledger, api: Api, user: User, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    """Sealed, newest version, believed for a minute: as that release reads them."""
    environment = {**ledger.environment("worker"), "MICROFIN_CACHE_ACCOUNTS": setting}
    number = await user.account()
    await ledger.stop_workers()
    with monkeypatch.context() as patched:
        patched.setattr(ledger, "environment", lambda _: environment)
        await ledger.start_workers()
    try:
        for turn in range(1, 4):
            settled = await user.deposit(number, "1")
            held = await api.services.redis.get(f"account:{number}")
            assert (held is not None) == (setting == "always")
            if held is not None:
                version, as_of, sealed = held.split(b" ", 2)
                seal = account_seal(ledger.settings().cache_secret)
                place = b"account:%b %b %b" % (number.encode(), version, as_of)
                document = seal and seal.open(place, sealed)
                assert document
                copy = json.loads(document)
                assert (copy["owner"], copy["currency"]) == (user.id, "EUR")
                assert (copy["balance"], copy["seq"]) == (100 * turn, settled["seq"])
                assert copy["version"] == int(version)
                assert is_fresh(int(as_of), time.time_ns() // 1_000_000)
    finally:
        await ledger.stop_workers()
        await ledger.start_workers()


async def test_clients_that_read_at_once_see_their_own_answers(user: User, another: Api) -> None:
    """Reads that are under way together may share one, but none that began before the answer."""
    numbers = [await user.account() for _ in range(4)]

    async def live(number: str, writes: httpx.AsyncClient, reads: httpx.AsyncClient) -> None:
        for turn in range(1, 16):
            body = {"accountNumber": number, "amount": "1"}
            settled = (await writes.post("/api/deposit", json=body)).json()
            account = await shown(reads, number)
            assert account["balance"] == settled["balance"] == f"{turn}.00"
            assert account["seq"] == settled["seq"] == turn

    async with at(another, user) as client:
        lives = [live(number, user.client, client) for number in numbers]
        await asyncio.gather(*lives, *(watch(client, number, 60) for number in numbers * 2))


async def watch(client: httpx.AsyncClient, number: str, times: int) -> None:
    """Read again and again; what is shown never goes back."""
    latest = 0
    for _ in range(times):
        seq = (await shown(client, number))["seq"]
        assert seq >= latest
        latest = seq
