"""A writer to Redis gains nothing: a value there is believed only for its seal."""

import asyncio
import json
import time
from hashlib import blake2b
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from microfin.ledger.operation import Operation
from microfin.redis.replies import Reply, channel_of
from microfin_api.commands.waiting import Waiter
from microfin_api.services import Services
from support.api_under_test import Api, Ledger, User, running


def session_key(session_id: str) -> str:
    return f"session:{blake2b(session_id.encode(), digest_size=32).hexdigest()}"


async def who(user: User) -> str:
    """Return the id of whom the API takes `user` for."""
    answer = await user.client.get("/api/me")
    assert answer.status_code == 200, answer.text
    identity: str = answer.json()["userId"]
    return identity


async def test_a_written_session_is_nobodys(api: Api, user: User) -> None:
    victim = await api.user()
    forged = {"user": victim.id, "expires": int(time.time()) + 10**6, "cached": int(time.time())}
    for text in (forged, {**forged, "mac": "0" * 32}, {"mac": "0" * 32, **forged}):
        key = session_key(user.session_id)
        await api.services.redis.set(key, json.dumps(text).encode(), seconds=3600)
        assert await who(user) == user.id


async def test_anothers_entry_under_ones_own_key_is_not_believed(api: Api, user: User) -> None:
    victim = await api.user()
    assert await who(victim) == victim.id
    held = await api.services.redis.get(session_key(victim.session_id))
    assert held is not None
    await api.services.redis.set(session_key(user.session_id), held, seconds=3600)
    assert await who(user) == user.id


async def test_an_entry_written_back_after_its_minute_is_not_believed(
    api: Api, user: User, later: SimpleNamespace
) -> None:
    assert await who(user) == user.id
    key = session_key(user.session_id)
    held = await api.services.redis.get(key)
    assert held is not None
    assert (await user.client.post("/api/signout")).status_code == 200
    await api.services.redis.set(key, held, seconds=3600)
    later.seconds = 61
    bearer = {"Authorization": f"Bearer {user.session_id}"}
    assert (await user.client.get("/api/me", headers=bearer)).status_code == 401


async def test_an_entry_from_the_future_is_not_believed(
    api: Api, user: User, later: SimpleNamespace
) -> None:
    """Otherwise a clock that was ahead would have made entries that live longer."""
    later.seconds = 3600
    await api.services.redis.delete(session_key(user.session_id))
    assert await who(user) == user.id
    held = await api.services.redis.get(session_key(user.session_id))
    assert held is not None
    assert (await user.client.post("/api/signout")).status_code == 200
    await api.services.redis.set(session_key(user.session_id), held, seconds=3600)
    later.seconds = 0
    bearer = {"Authorization": f"Bearer {user.session_id}"}
    assert (await user.client.get("/api/me", headers=bearer)).status_code == 401


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Put the sessions' clock ahead by `seconds`."""
    ahead = SimpleNamespace(seconds=0)
    clock = SimpleNamespace(time_ns=lambda: time.time_ns() + ahead.seconds * 10**9)
    monkeypatch.setattr("microfin_api.people.session_cache.time", clock)
    return ahead


async def forge(services: Services, waiter: Waiter, status: str) -> None:
    """Publish what a worker would, for a request that waits."""
    command = waiter.command
    fields: dict[str, Any] = {
        name: getattr(command, name) for name in ("operation", "kind", "account")
    }
    amounts = {"amount": 700, "currency": "EUR", "balance": 10**9, "seq": 9, "time": 1}
    operation = Operation(**fields, **amounts, status=status)
    request = command.reply.rpartition("/")[2]
    for refused in (False, True):
        payload = msgspec.json.encode([Reply(request, operation, refused=refused)])
        await services.redis.publish(channel_of(services.instance), payload)


async def test_a_published_answer_is_only_a_reason_to_look(ledger: Ledger) -> None:
    """With the workers stopped nothing can settle, even if the channel says so."""
    others = {"look_up_after": 60.0, "answer_within": 2.0}
    async with running(ledger.settings(**others)) as api:
        user = await api.user()
        number = await user.account()
        await ledger.stop_workers()
        try:
            body = {"accountNumber": number, "amount": "7"}
            asking = asyncio.create_task(user.client.post("/api/deposit", json=body))
            async with asyncio.timeout(30):
                while not asking.done():
                    for waiter in list(api.services.waiting._waiters.values()):
                        await forge(api.services, waiter, "settled")
                        await forge(api.services, waiter, "rejected")
                    await asyncio.sleep(0.05)
            answer = await asking
            assert (answer.status_code, answer.json()["status"]) == (202, "accepted")
        finally:
            await ledger.start_workers()
        async with asyncio.timeout(30):
            while await user.balance(number) != "7.00":  # noqa: ASYNC110 - as in `until_true`
                await asyncio.sleep(0.05)


async def test_workers_without_the_secret_settle_all_the_same(ledger: Ledger) -> None:
    """Their answers are not believed, and so looked up at once."""
    settings = ledger.settings(look_up_after=60.0, cache_secret="another secret than theirs " * 2)
    async with running(settings) as api:
        user = await api.user()
        async with asyncio.timeout(30):
            number = await user.account(balance="5")
            assert (await user.deposit(number, "1"))["balance"] == "6.00"
            shown = await user.client.get(f"/api/accounts/{number}")
            assert shown.json()["balance"] == "6.00"
