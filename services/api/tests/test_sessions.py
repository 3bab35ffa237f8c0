"""Signing in and out, and sessions while Redis is empty, gone or hung."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from microfin.process.settings import ApiSettings
from support.api_under_test import PASSWORD, Api, Ledger, User, running


async def test_a_sign_up_signs_in(api: Api) -> None:
    async with api.client() as client:
        body = {"name": " Anna ", "email": "Sign.Up@Example.com", "password": PASSWORD}
        answer = await client.post("/api/signup", json=body)
        assert answer.status_code == 200
        signed_in = answer.json()
        assert (signed_in["name"], signed_in["email"]) == ("Anna", "sign.up@example.com")
        assert client.cookies["sessionId"] == signed_in["sessionId"]
        assert "HttpOnly" in answer.headers["set-cookie"]
        me = await client.get("/api/me")
        assert me.json() == {
            "userId": signed_in["userId"],
            "name": "Anna",
            "email": "sign.up@example.com",
        }
        other = {**body, "email": "sign.up@example.com", "password": "another horse"}
        again = await client.post("/api/signup", json=other)
        assert (again.status_code, again.json()["code"]) == (409, "email_taken")


async def test_a_sign_in_opens_a_session_of_its_own(api: Api, user: User) -> None:
    async with api.client() as client:
        body = {"email": user.email.upper(), "password": PASSWORD}
        signed_in = (await client.post("/api/signin", json=body)).json()
        assert signed_in["userId"] == user.id
        assert signed_in["sessionId"] != user.session_id
        assert (await client.post("/api/signout")).status_code == 200
        assert "sessionId" not in client.cookies
        assert (await client.get("/api/me")).status_code == 401
    assert (await user.client.get("/api/me")).status_code == 200


@pytest.mark.parametrize(
    "address", ["o'brien@example.com", "'or'1'='1'--@example.com", "{x}$$@example.com"]
)
async def test_an_address_means_itself_to_the_database(api: Api, address: str) -> None:
    """It travels as a literal inside the statement."""
    async with api.client() as client:
        stranger = {"email": address, "password": PASSWORD}
        assert (await client.post("/api/signin", json=stranger)).status_code == 401
        person = {**stranger, "name": "O'Brien"}
        signed_up = (await client.post("/api/signup", json=person)).json()
        signed_in = (await client.post("/api/signin", json=stranger)).json()
        assert signed_in["userId"] == signed_up["userId"]
        assert (signed_in["email"], signed_in["name"]) == (address, "O'Brien")


async def test_a_session_that_has_ended_stays_so(api: Api, user: User) -> None:
    assert (await user.client.get("/api/me")).status_code == 200
    assert (await user.client.post("/api/signout")).status_code == 200
    async with api.client(Authorization=f"Bearer {user.session_id}") as bearer:
        assert (await bearer.get("/api/me")).status_code == 401
        assert (await bearer.post("/api/signout")).status_code == 200
    async with api.client() as nobody:
        assert (await nobody.post("/api/signout")).status_code == 401


async def test_an_expired_session_is_refused(api: Api, user: User) -> None:
    async with api.services.pools[0].acquire() as connection, connection.transaction():
        await connection.execute(
            "UPDATE sessions SET expires_at = clock_timestamp() WHERE user_id = $1", user.id
        )
    await flush(api.settings)
    answer = await user.client.get("/api/me")
    assert (answer.status_code, answer.json()["code"]) == (401, "not_signed_in")
    await api.services.sessions.forget_expired()
    async with api.services.pools[0].acquire() as connection, connection.transaction():
        count = "SELECT count(*) FROM sessions WHERE user_id = $1"
        assert await connection.fetchval(count, user.id) == 0


async def test_unknown_address_and_wrong_password_are_one_answer(api: Api, user: User) -> None:
    async with api.client() as client:
        wrong = {"email": user.email, "password": "wrong"}
        unknown = {"email": "nobody@example.com", "password": PASSWORD}
        answers = [await client.post("/api/signin", json=body) for body in (wrong, unknown)]
    assert [answer.status_code for answer in answers] == [401, 401]
    problems = [answer.json() for answer in answers]
    assert problems[0].pop("requestId") != problems[1].pop("requestId")
    assert problems[0] == problems[1]
    assert problems[0]["code"] == "sign_in_failed"


async def flush(settings: ApiSettings) -> None:
    """Empty all nodes of the Redis Cluster."""
    for url in settings.redis_urls:
        async with Redis.from_url(url) as node:
            await node.flushall()


async def test_redis_flushed(api: Api, user: User) -> None:
    number = await user.account(balance="5")
    await flush(api.settings)
    assert (await user.client.get("/api/me")).status_code == 200
    assert (await user.deposit(number, "1"))["balance"] == "6.00"
    await flush(api.settings)
    shown = await user.client.get(f"/api/accounts/{number}")
    assert shown.json()["balance"] == "6.00"


@pytest.fixture
async def hung_server() -> AsyncIterator[int]:
    """The port of a server that takes connections and never says a word."""

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


async def use_everything(api: Api) -> dict[str, Any]:
    """Sign up, move money, sign in and out; return the last state of the account."""
    user = await api.user()
    number = await user.account(balance="5")
    async with api.client() as client:
        body = {"email": user.email, "password": PASSWORD}
        assert (await client.post("/api/signin", json=body)).status_code == 200
        wrong = {**body, "password": "wrong"}
        assert (await client.post("/api/signin", json=wrong)).status_code == 401
        assert (await client.post("/api/signout")).status_code == 200
        assert (await client.get("/api/me")).status_code == 401
    shown: dict[str, Any] = (await user.client.get(f"/api/accounts/{number}")).json()
    await user.client.aclose()
    return shown


async def test_redis_gone(ledger: Ledger) -> None:
    async with running(ledger.settings(redis="redis://127.0.0.1:1")) as api:
        assert (await use_everything(api))["balance"] == "5.00"


async def test_redis_hung(ledger: Ledger, hung_server: int) -> None:
    async with running(ledger.settings(redis=f"redis://127.0.0.1:{hung_server}")) as api:
        assert (await use_everything(api))["balance"] == "5.00"


@pytest.mark.parametrize("redis", ["", "redis://127.0.0.1:1"])
async def test_failed_sign_ins_are_limited_per_address(ledger: Ledger, redis: str) -> None:
    others = {"redis": redis} if redis else {}
    async with running(ledger.settings(sign_in_rate=3, **others)) as api:
        user, other = await api.user(), await api.user()
        async with api.client() as client:
            wrong = {"email": user.email, "password": "wrong"}
            statuses = [
                (await client.post("/api/signin", json=wrong)).status_code for _ in range(4)
            ]
            assert statuses == [401, 401, 401, 429]
            right = await client.post("/api/signin", json={**wrong, "password": PASSWORD})
            assert (right.status_code, right.json()["code"]) == (429, "too_many_sign_ins")
            assert int(right.headers["retry-after"]) > 0
            body = {"email": other.email, "password": PASSWORD}
            assert (await client.post("/api/signin", json=body)).status_code == 200


async def test_failed_sign_ins_are_limited_per_client(ledger: Ledger) -> None:
    async with running(ledger.settings(sign_in_address_rate=2)) as api, api.client() as client:
        here = {"X-Forwarded-For": "198.51.100.77"}
        for number in range(3):
            body = {"email": f"nobody{number}@example.com", "password": "wrong"}
            answer = await client.post("/api/signin", json=body, headers=here)
            assert answer.status_code == (401 if number < 2 else 429)
        elsewhere = {"X-Forwarded-For": "198.51.100.78"}
        assert (await client.post("/api/signin", json=body, headers=elsewhere)).status_code == 401


async def test_many_sign_ins_at_once_gain_nothing(ledger: Ledger) -> None:
    async with running(ledger.settings(sign_in_rate=3)) as api:
        user = await api.user()
        async with api.client() as client:
            wrong = {"email": user.email, "password": "wrong"}
            answers = await asyncio.gather(
                *(client.post("/api/signin", json=wrong) for _ in range(20))
            )
        assert [answer.status_code for answer in answers].count(401) <= 3


async def test_too_many_password_hashes_are_refused(ledger: Ledger) -> None:
    settings = ledger.settings(argon2_concurrency=1, argon2_memory=65536, argon2_time=3)
    async with running(settings) as api, api.client() as client:
        answers = await asyncio.gather(
            *(
                client.post(
                    "/api/signin",
                    json={"email": f"crowd{number}@example.com", "password": "wrong"},
                )
                for number in range(40)
            )
        )
    refused = [answer for answer in answers if answer.status_code == 503]
    assert refused
    assert all(answer.json()["code"] == "overloaded" for answer in refused)
    assert all(answer.headers["retry-after"] for answer in refused)
    assert {answer.status_code for answer in answers} == {401, 503}


async def test_a_hash_of_another_cost_is_renewed(ledger: Ledger, user: User) -> None:
    async with running(ledger.settings(argon2_time=2)) as api:
        before = await api.services.users.with_id(user.id)
        async with api.client() as client:
            body = {"email": user.email, "password": PASSWORD}
            assert (await client.post("/api/signin", json=body)).status_code == 200
            after = await api.services.users.with_id(user.id)
            assert before is not None
            assert after is not None
            assert before.password_hash != after.password_hash
            assert (await client.post("/api/signin", json=body)).status_code == 200
