"""A session that has ended stays ended, even if it was being read at that moment."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from hashlib import blake2b
from typing import Any

import httpx
import pytest

from support.api_under_test import PASSWORD, Api, Ledger, User, running
from support.signed_in import status_of


class PausedPool:
    """A pool whose connections come back, with what was read, only once they may."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self.read = asyncio.Event()
        self.go_on = asyncio.Event()

    @contextlib.asynccontextmanager
    async def acquire(self) -> AsyncIterator[Any]:
        async with self._pool.acquire() as connection:
            yield connection
        self.read.set()
        await self.go_on.wait()


async def uncache(api: Api, session_id: str) -> None:
    hashed = blake2b(session_id.encode(), digest_size=32).hexdigest()
    await api.services.redis.delete(f"session:{hashed}")


async def test_what_was_read_before_a_sign_out_is_not_cached_after_it(
    api: Api, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    await uncache(api, user.session_id)
    sessions = api.services.sessions
    store = sessions._store
    paused = PausedPool(store._pool)
    with monkeypatch.context() as patch:
        patch.setattr(store, "_pool", paused)
        reading = asyncio.create_task(sessions.find(user.session_id))
        await paused.read.wait()
    assert (await user.client.post("/api/signout")).status_code == 200
    paused.go_on.set()
    assert await reading is not None
    assert await status_of(api, user.session_id) == 401


async def test_reads_that_race_with_a_sign_out(ledger: Ledger) -> None:
    """Two processes: what one has ended the other must not put back."""
    async with running(ledger.settings()) as here, running(ledger.settings()) as there:
        still_in = 0
        user = await here.user()
        body = {"email": user.email, "password": PASSWORD}
        for _ in range(80):
            session_id = (await user.client.post("/api/signin", json=body)).json()["sessionId"]
            await uncache(here, session_id)
            async with asyncio.TaskGroup() as racing:
                for _ in range(3):
                    racing.create_task(status_of(there, session_id))
                racing.create_task(sign_out(here, session_id))
            still_in += await status_of(there, session_id) != 401
        assert still_in == 0


async def sign_out(api: Api, session_id: str) -> httpx.Response:
    async with api.client(Authorization=f"Bearer {session_id}") as bearer:
        return await bearer.post("/api/signout")


async def test_a_written_tombstone_signs_nobody_out(api: Api, user: User) -> None:
    hashed = blake2b(user.session_id.encode(), digest_size=32).hexdigest()
    await api.services.redis.set(f"session:{hashed}", b"ended", seconds=60)
    assert await status_of(api, user.session_id) == 200
    assert await api.services.redis.get(f"session:{hashed}") == b"ended"


async def test_what_is_not_believed_is_replaced_by_a_reader(api: Api, user: User) -> None:
    hashed = blake2b(user.session_id.encode(), digest_size=32).hexdigest()
    await api.services.redis.set(f"session:{hashed}", b"forged", seconds=60)
    assert await status_of(api, user.session_id) == 200
    held = await api.services.redis.get(f"session:{hashed}")
    assert held is not None
    assert user.id.encode() in held


@pytest.mark.parametrize("order", ["{stale}; {valid}", "{valid}; {stale}", "{valid}; {other}"])
async def test_of_two_cookies_the_valid_one_counts(api: Api, user: User, order: str) -> None:
    async with api.client() as client:
        body = {"email": user.email, "password": PASSWORD}
        stale = (await client.post("/api/signin", json=body)).json()["sessionId"]
        await client.post("/api/signout")
    cookie = order.format(
        stale=f"sessionId={stale}", valid=f"sessionId={user.session_id}", other="sessionId=x"
    )
    async with api.client(Cookie=cookie) as client:
        assert (await client.get("/api/me")).json()["userId"] == user.id
        assert (await client.post("/api/accounts", json={})).status_code == 201
        assert (await client.post("/api/signout")).status_code == 200
        assert (await client.get("/api/me")).status_code == 401


async def test_cookies_of_two_people_are_nobodys(api: Api, user: User) -> None:
    """A page of another host of ours can set a cookie for all; it must not choose who one is."""
    other = await api.user()
    cookie = f"sessionId={other.session_id}; sessionId={user.session_id}"
    async with api.client(Cookie=cookie) as client:
        refused = await client.get("/api/me")
        assert (refused.status_code, refused.json()["code"]) == (401, "not_signed_in")
        assert (await client.post("/api/signout")).status_code == 200
    assert await status_of(api, user.session_id) == 401


async def test_an_unknown_bearer_hides_no_cookie(api: Api, user: User) -> None:
    for token in ("", "unknown", f"{user.session_id}x"):
        headers = {"Authorization": f"Bearer {token}"}
        answer = await user.client.get("/api/me", headers=headers)
        assert answer.status_code == 200, token


async def test_a_bearer_that_has_ended_is_not_helped_by_a_cookie(api: Api, user: User) -> None:
    """It is what the request asks by, so that it cannot excuse a cookie from the cookies' rules."""
    async with api.client() as client:
        body = {"email": user.email, "password": PASSWORD}
        ended = (await client.post("/api/signin", json=body)).json()["sessionId"]
        await client.post("/api/signout")
    headers = {"Authorization": f"Bearer {ended}"}
    assert (await user.client.get("/api/me", headers=headers)).status_code == 401
