"""Becoming a user: once, whole, and under one name however it is typed."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from uuid import uuid4

import asyncpg
import httpx
from api_under_test import PASSWORD, Api, Ledger, User, running


def person(**change: str) -> dict[str, str]:
    return {
        "name": "Anna",
        "email": f"{uuid4().hex}@example.com",
        "password": PASSWORD,
        **change,
    }


async def sign_up(api: Api, body: dict[str, str], **headers: str) -> httpx.Response:
    async with api.client(**headers) as client:
        return await client.post("/api/signup", json=body)


@contextlib.asynccontextmanager
async def refusing_sessions(ledger: Ledger) -> AsyncIterator[None]:
    """Let the database refuse every new session."""
    url = ledger.platform.postgres_direct(0, database=f"{ledger.name}_0")
    connection = await asyncpg.connect(url, ssl=False)
    try:
        await connection.execute(
            "ALTER TABLE sessions ADD CONSTRAINT refused CHECK (false) NOT VALID"
        )
        yield
    finally:
        await connection.execute("ALTER TABLE sessions DROP CONSTRAINT refused")
        await connection.close()


async def users_of(ledger: Ledger, email: str) -> int:
    url = ledger.platform.postgres_direct(0, database=f"{ledger.name}_0")
    connection = await asyncpg.connect(url, ssl=False)
    try:
        count: int = await connection.fetchval("SELECT count(*) FROM users WHERE email = $1", email)
        return count
    finally:
        await connection.close()


async def test_a_sign_up_that_fails_leaves_no_user(ledger: Ledger, api: Api) -> None:
    body = person()
    async with refusing_sessions(ledger):
        assert (await sign_up(api, body)).status_code == 500
        assert await users_of(ledger, body["email"]) == 0
    assert (await sign_up(api, body)).status_code == 200


async def test_a_sign_up_whose_answer_was_lost_is_repeated(api: Api) -> None:
    body = person()
    first, again = await sign_up(api, body), await sign_up(api, body)
    assert (first.status_code, again.status_code) == (200, 200)
    assert first.json()["userId"] == again.json()["userId"]
    assert first.json()["sessionId"] != again.json()["sessionId"]
    async with api.client(Authorization=f"Bearer {again.json()['sessionId']}") as client:
        assert (await client.get("/api/me")).json()["userId"] == first.json()["userId"]


async def test_the_same_sign_up_at_one_time_makes_one_user(api: Api) -> None:
    body = person()
    answers = await asyncio.gather(*(sign_up(api, body) for _ in range(5)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["userId"] for answer in answers}) == 1


async def test_anothers_address_is_taken(api: Api, user: User) -> None:
    answer = await sign_up(api, person(email=user.email, password="another horse"))
    assert (answer.status_code, answer.json()["code"]) == (409, "email_taken")


async def test_sign_ups_guess_no_more_passwords_than_sign_ins(ledger: Ledger) -> None:
    """A sign-up tells whether a password fits: it counts as the failed sign-in that it is."""
    async with running(ledger.settings(sign_in_rate=3)) as api:
        user = await api.user()
        guesses = [
            await sign_up(api, person(email=user.email, password=f"guess number {number}"))
            for number in range(4)
        ]
        assert [answer.status_code for answer in guesses] == [409, 409, 409, 429]
        assert guesses[-1].json()["code"] == "too_many_sign_ins"
        right = await sign_up(api, person(email=user.email))
        assert right.status_code == 429
        async with api.client() as client:
            body = {"email": user.email, "password": PASSWORD}
            assert (await client.post("/api/signin", json=body)).status_code == 429
