"""Becoming a user: once, whole, and under one name however it is typed."""

import asyncio
import contextlib
import unicodedata
from collections.abc import AsyncIterator
from uuid import uuid4

import asyncpg
import httpx
import pytest
from argon2 import PasswordHasher

from microfin.people.identity import email_form
from support.api_under_test import PASSWORD, Api, Ledger, User, running


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
    """A sign-up shows whether a password fits: it counts as a failed sign-in."""
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


async def sign_in(api: Api, email: str, password: str) -> httpx.Response:
    async with api.client() as client:
        return await client.post("/api/signin", json={"email": email, "password": password})


@pytest.mark.parametrize(
    ("one", "other"),
    [("ΟΔΟΣ", "οδοσ"), ("ΟΔΟΣ", "οδος"), ("jose\u0301", "JOSÉ"), ("straße", "STRASSE")],
)
async def test_one_address_is_one_user(api: Api, one: str, other: str) -> None:
    domain = f"@{uuid4().hex}.example"
    signed_up = await sign_up(api, person(email=one + domain))
    assert signed_up.status_code == 200
    for typed in (one, other, one.upper(), unicodedata.normalize("NFD", other)):
        signed_in = await sign_in(api, typed + domain, PASSWORD)
        assert signed_in.json().get("userId") == signed_up.json()["userId"], typed
    answer = await sign_up(api, person(email=other + domain, password="another horse"))
    assert (answer.status_code, answer.json()["code"]) == (409, "email_taken")


async def test_a_domain_has_one_name(api: Api) -> None:
    name = uuid4().hex
    signed_up = await sign_up(api, person(email=f"{name}@bücher.example"))
    signed_in = await sign_in(api, f"{name}@XN--BCHER-KVA.example", PASSWORD)
    assert signed_in.json().get("userId") == signed_up.json()["userId"]


@pytest.mark.parametrize("local", ["οδος", "οδοσ", "jose\u0301", "anna"])
async def test_a_user_of_the_release_before_is_found_and_not_doubled(
    ledger: Ledger, api: Api, local: str
) -> None:
    """It stored the address as `str.lower` makes it, and hashed the password as it was sent."""
    stored = f"{local}@{uuid4().hex}.example"
    password = "cafe\u0301 noir"
    url = ledger.platform.postgres_direct(0, database=f"{ledger.name}_0")
    connection = await asyncpg.connect(url, ssl=False)
    await connection.execute(
        "INSERT INTO users (id, email, name, password_hash) VALUES ($1, $2, 'Anna', $3)",
        uuid4(),
        stored,
        PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(password),
    )
    await connection.close()
    for typed in (stored, stored.upper(), email_form(stored), unicodedata.normalize("NFC", stored)):
        answer = await sign_in(api, typed, password)
        assert (answer.status_code, answer.json()["email"]) == (200, stored)
        again = await sign_up(api, person(email=typed, password="another horse"))
        assert (again.status_code, again.json()["code"]) == (409, "email_taken")


async def test_a_password_is_one_however_it_is_composed(api: Api) -> None:
    body = person(password="cafe\u0301 noir")
    assert (await sign_up(api, body)).status_code == 200
    for typed in ("cafe\u0301 noir", "caf\u00e9 noir"):
        assert (await sign_in(api, body["email"], typed)).status_code == 200
    assert (await sign_in(api, body["email"], "cafe noir")).status_code == 401


@pytest.mark.parametrize(
    ("member", "value", "sentence"),
    [
        ("name", "\u200b\u200d", "invisible"),
        ("name", "\u3164", "can be seen"),
        ("name", "Ada \u202eavoL", "invisible"),
        ("email", "ad\u200ba@example.com", "invisible"),
        ("password", "password", "tried first"),
        ("password", "Iloveyou", "tried first"),
        ("password", "e\u0301e\u0301e\u0301e\u0301", "8 to 128"),
    ],
)
async def test_what_nobody_may_be_called_or_choose(
    api: Api, member: str, value: str, sentence: str
) -> None:
    answer = await sign_up(api, person(**{member: value}))
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_body")
    assert sentence in answer.json()["detail"]
    assert f"$.{member}" in answer.json()["detail"]


async def test_accounts_are_held_in_currencies_of_today(user: User) -> None:
    number = await user.account("XCG", balance="12.3")
    assert await user.balance(number) == "12.30"


async def test_sign_ups_are_limited_per_client(ledger: Ledger) -> None:
    async with running(ledger.settings(sign_up_address_rate=2)) as api:
        here = {"X-Forwarded-For": f"2001:db8:{uuid4().hex[:4]}::1"}
        answers = [await sign_up(api, person(), **here) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert answers[-1].json()["code"] == "too_many_sign_ups"
        assert 0 < int(answers[-1].headers["retry-after"]) <= 60
        elsewhere = {"X-Forwarded-For": f"2001:db9:{uuid4().hex[:4]}::1"}
        assert (await sign_up(api, person(), **elsewhere)).status_code == 200


async def test_sign_ups_shut_nobody_out(ledger: Ledger) -> None:
    """Sixty sign up at once, and one signs in: that one is answered while they wait."""
    settings = ledger.settings(argon2_concurrency=1, argon2_memory=32768, argon2_time=3)
    async with running(settings) as api:
        user = await api.user()
        crowd = [asyncio.create_task(sign_up(api, person())) for _ in range(60)]
        refused = 0
        while refused < 30:  # the lane of sign-ups is full
            await asyncio.sleep(0.01)
            refused = sum(it.done() and it.result().status_code == 503 for it in crowd)
        signed_in = await sign_in(api, user.email, PASSWORD)
        assert signed_in.status_code == 200
        assert sum(not it.done() for it in crowd) > 5
        answers = await asyncio.gather(*crowd)
    assert {answer.status_code for answer in answers} == {200, 503}
    assert {it.json()["code"] for it in answers if it.status_code == 503} == {"overloaded"}
