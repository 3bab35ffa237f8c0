"""How often signing in may fail, whose tries count, and what that never keeps out."""

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import httpx
import pytest
from redis.asyncio import Redis

from microfin.process.settings import ApiSettings
from microfin.redis.node import Node
from microfin_api.people import allowance, sign_in_rate
from support.api_under_test import PASSWORD, Api, Ledger, User, running


async def counters(settings: ApiSettings) -> dict[str, tuple[Redis, int]]:
    """Return the keys of limits with their nodes and times to live in seconds (-1: none)."""
    found = {}
    for url in settings.redis_urls:
        node = Redis.from_url(url)
        async for key in node.scan_iter("rate:*in:*"):
            seconds = await node.ttl(key)
            if seconds != -2:  # it has ended since
                found[key.decode()] = (node, seconds)
    return found


async def attempt(client: httpx.AsyncClient, email: str, password: str, **headers: str) -> int:
    body = {"email": email, "password": password}
    return (await client.post("/api/signin", json=body, headers=headers)).status_code


async def test_a_counter_without_an_end_locks_nobody_out(ledger: Ledger) -> None:
    here = somewhere()
    async with running(ledger.settings(sign_in_rate=2)) as api, api.client() as client:
        user, before = await api.user(), await counters(api.settings)
        assert await attempt(client, user.email, "wrong", **here) == 401
        for key, (node, _) in (await counters(api.settings)).items():
            if key not in before:
                await node.set(key, "999999")
    async with running(api.settings) as api, api.client() as client:
        assert await attempt(client, user.email, "wrong", **here) == 401
        assert await attempt(client, user.email, PASSWORD, **here) == 200
        assert {ttl >= 0 for _, ttl in (await counters(api.settings)).values()} == {True}


async def test_a_lost_reply_leaves_no_counter_without_an_end(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever command it is after which Redis answers no more."""
    ask = Node.ask
    asked: list[str] = []

    async def lose(node: Node, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        asked.append(str(commands[0][0]))
        if commands[0][0] == "EXPIRE" or asked.count("EVALSHA") > 3:
            raise TimeoutError
        return await ask(node, commands)

    async with running(ledger.settings()) as api, api.client() as client:
        monkeypatch.setattr(Node, "ask", lose)
        for number in range(3):
            assert await attempt(client, f"lost{number}@example.com", "wrong") == 401
        monkeypatch.undo()
        assert {ttl >= 0 for _, ttl in (await counters(api.settings)).values()} == {True}


def somewhere() -> dict[str, str]:
    """Return the headers of a client whose address nobody else has."""
    groups = uuid4().hex
    return {"X-Forwarded-For": f"2001:db8:{groups[:4]}:{groups[4:8]}::1"}


async def known_device(api: Api, user: User) -> dict[str, str]:
    """Return the headers of a device that the user signs in with."""
    async with api.client() as client:
        body = {"email": user.email, "password": PASSWORD}
        answer = await client.post("/api/signin", json=body, headers=somewhere())
        [cookie] = [
            it for it in answer.headers.get_list("set-cookie") if it.startswith("deviceId=")
        ]
        assert "HttpOnly; SameSite=Lax" in cookie
        assert "Path=/api/signin;" in cookie
        return {"Cookie": cookie.partition(";")[0]}


async def test_a_stranger_locks_nobody_out(ledger: Ledger) -> None:
    """Not from elsewhere, however often his tries fail."""
    async with running(ledger.settings(sign_in_rate=3)) as api, api.client() as client:
        user, stranger = await api.user(), somewhere()
        tries = [await attempt(client, user.email, "wrong", **stranger) for _ in range(5)]
        assert tries == [401, 401, 401, 429, 429]
        client.cookies.clear()
        assert await attempt(client, user.email, PASSWORD, **somewhere()) == 200


async def test_many_strangers_slow_only_unknown_devices(ledger: Ledger) -> None:
    settings = ledger.settings(sign_in_rate=3, sign_in_email_rate=5)
    async with running(settings) as api, api.client() as client:
        user = await api.user()
        device = await known_device(api, user)
        tries = [await attempt(client, user.email, "wrong", **somewhere()) for _ in range(7)]
        assert tries == [401] * 5 + [429] * 2
        assert await attempt(client, user.email, PASSWORD, **somewhere()) == 429
        assert await attempt(client, user.email, PASSWORD, **somewhere(), **device) == 200


async def test_a_known_device_has_a_limit_of_its_own(ledger: Ledger) -> None:
    async with running(ledger.settings(sign_in_rate=3)) as api, api.client() as client:
        user = await api.user()
        device = await known_device(api, user)
        tries = [
            await attempt(client, user.email, "wrong", **somewhere(), **device) for _ in range(4)
        ]
        assert tries == [401, 401, 401, 429]


async def test_a_device_is_known_to_its_user_until_the_password_changes(ledger: Ledger) -> None:
    settings = ledger.settings(sign_in_email_rate=2)
    async with running(settings) as api, api.client() as client:
        user, other = await api.user(), await api.user()
        device, others = await known_device(api, user), await known_device(api, other)
        for _ in range(2):
            assert await attempt(client, user.email, "wrong", **somewhere()) == 401
        forged = {"Cookie": f"{device['Cookie'][:-1]}{'A' if device['Cookie'][-1] != 'A' else 'B'}"}
        foreign = {"Cookie": others["Cookie"].replace(other.id, user.id)}
        for cookie in (forged, foreign, others, {"Cookie": "deviceId=.."}):
            assert await attempt(client, user.email, PASSWORD, **somewhere(), **cookie) == 429
        assert await attempt(client, user.email, PASSWORD, **somewhere(), **device) == 200
        stored = await api.services.users.with_id(user.id)
        assert stored is not None
        await api.services.users.replace_hash(stored, await api.services.passwords.hash(PASSWORD))
        assert await attempt(client, user.email, PASSWORD, **somewhere(), **device) == 429


async def test_right_passwords_cost_nothing_also_at_one_time(ledger: Ledger) -> None:
    settings = ledger.settings(sign_in_rate=2, sign_in_address_rate=3, sign_in_email_rate=2)
    async with running(settings) as api, api.client() as client:
        user, here = await api.user(), somewhere()
        async with asyncio.timeout(60):
            statuses = await asyncio.gather(
                *(attempt(client, user.email, PASSWORD, **here) for _ in range(20))
            )
        assert set(statuses) == {200}


@pytest.mark.parametrize("redis", ["", "redis://127.0.0.1:1"])
async def test_processes_count_together_while_redis_is_there(ledger: Ledger, redis: str) -> None:
    settings = ledger.settings(sign_in_rate=3, **({"redis": redis} if redis else {}))
    async with running(settings) as one, running(settings) as two:
        user, here = await one.user(), somewhere()
        async with one.client() as first, two.client() as second:
            statuses = await asyncio.gather(
                *(
                    attempt(client, user.email, "wrong", **here)
                    for client in (first, second)
                    for _ in range(10)
                )
            )
    assert statuses.count(401) == (6 if redis else 3)
    assert statuses.count(429) == (14 if redis else 17)


async def test_a_refusal_says_how_long_it_lasts(ledger: Ledger) -> None:
    async with running(ledger.settings(sign_in_rate=1)) as api, api.client() as client:
        user, here = await api.user(), somewhere()
        before = await counters(api.settings)
        assert await attempt(client, user.email, "wrong", **here) == 401
        await asyncio.sleep(1.5)
        body = {"email": user.email, "password": PASSWORD}
        answer = await client.post("/api/signin", json=body, headers=here)
        after = await counters(api.settings)
    left = [ttl for key, (_, ttl) in after.items() if key not in before]
    assert answer.status_code == 429
    assert min(left) <= int(answer.headers["retry-after"]) <= max(left) + 1 < 60


@pytest.mark.parametrize("redis", ["", "redis://127.0.0.1:1"])
async def test_what_has_lapsed_is_not_given_back_again(
    ledger: Ledger, redis: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be what another attempt has acquired since."""
    settings = ledger.settings(sign_in_rate=1, **({"redis": redis} if redis else {}))
    monkeypatch.setattr(allowance, "LAPSE_MILLISECONDS", 300)
    monkeypatch.setattr(sign_in_rate, "LAPSE_MILLISECONDS", 300)
    async with running(settings) as api:
        rate = api.services.sign_in_rate
        limits = rate.of_user(uuid4().hex)
        with rate.attempt("too_many_sign_ins") as slow:
            await slow.acquire(limits)
            other = rate.attempt("too_many_sign_ins")
            await other.acquire(limits)  # as soon as the first has lapsed
        await asyncio.gather(*rate._releases._tasks)
        [blocked] = await rate.try_to_acquire(limits)
        assert blocked.result is allowance.Result.BUSY
