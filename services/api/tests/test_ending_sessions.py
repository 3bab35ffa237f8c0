"""What a stolen password or session can be answered with: ending it, at once, cached or not."""

import asyncio
from hashlib import blake2b
from typing import Any

import asyncpg
import httpx
import pytest

from microfin.people.access import DISABLE, SIGN_OUT, end_all_sessions
from support.api_under_test import PASSWORD, Api, Ledger, User, running
from support.signed_in import NEW_PASSWORD, sign_in, status_of, thief_of
from support.waiting import until


async def change(user: User, current: str = PASSWORD, new: str = NEW_PASSWORD) -> httpx.Response:
    body = {"currentPassword": current, "newPassword": new}
    return await user.client.post("/api/password", json=body)


async def test_a_new_password_ends_the_other_sessions(api: Api, user: User) -> None:
    stolen = await thief_of(api, user)
    changed = await change(user)
    assert changed.status_code == 200, changed.text
    assert changed.json() == {"sessionId": user.client.cookies["sessionId"]}
    assert changed.json()["sessionId"] not in (stolen, user.session_id)
    assert await status_of(api, stolen) == 401
    assert await status_of(api, user.session_id) == 401
    assert (await user.client.get("/api/me")).status_code == 200
    assert (await sign_in(api, user)).status_code == 401
    assert (await sign_in(api, user, NEW_PASSWORD)).status_code == 200


async def test_a_wrong_current_password_changes_nothing(api: Api, user: User) -> None:
    stolen = await thief_of(api, user)
    wrong = await change(user, "a guess of it")
    assert (wrong.status_code, wrong.json()["code"]) == (403, "wrong_password")
    short = await change(user, new="short")
    assert (short.status_code, short.json()["code"]) == (400, "invalid_body")
    assert await status_of(api, stolen) == 200
    assert (await sign_in(api, user)).status_code == 200
    async with api.client() as nobody:
        body = {"currentPassword": PASSWORD, "newPassword": NEW_PASSWORD}
        assert (await nobody.post("/api/password", json=body)).status_code == 401
    foreign = {"Origin": "http://elsewhere.test"}
    answer = await user.client.post("/api/password", json=body, headers=foreign)
    assert (answer.status_code, answer.json()["code"]) == (403, "cross_origin")


async def test_wrong_current_passwords_count_as_failed_sign_ins(ledger: Ledger) -> None:
    async with running(ledger.settings(sign_in_rate=3)) as api:
        user = await api.user()
        statuses = [(await change(user, "a guess of it")).status_code for _ in range(4)]
        assert statuses == [403, 403, 403, 429]


async def test_a_sign_in_under_way_does_not_outlive_a_new_password(
    api: Api, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its password was right when it was verified, and is not any more."""
    verify, verified, go_on = api.services.passwords.verify, asyncio.Event(), asyncio.Event()

    async def verify_and_pause(*arguments: Any) -> bool:
        fits = await verify(*arguments)
        verified.set()
        await go_on.wait()
        return fits

    with monkeypatch.context() as patch:
        patch.setattr(api.services.passwords, "verify", verify_and_pause)
        signing_in = asyncio.create_task(sign_in(api, user))
        await verified.wait()
    assert (await change(user)).status_code == 200
    go_on.set()
    answer = await signing_in
    assert (answer.status_code, answer.json()["code"]) == (401, "sign_in_failed")


async def test_an_end_waits_for_a_session_that_is_being_opened(api: Api, user: User) -> None:
    """Else it would not see that session, which could be cached as valid after the end."""
    pool, sessions = api.services.pools[0], api.services.sessions
    store, say = sessions._store, sessions._ended.say
    async with pool.acquire() as connection:
        async with connection.transaction():
            assert await store.open_on(connection, b"being opened", user.id, 0) == []
            ending = asyncio.create_task(end_all_sessions(pool, api.services.redis, say, user.id))
            await until_waiting_for_a_lock(api, ending)
        ended = await ending
    assert ended is not None
    assert ended.sessions == 2
    assert await sessions_in_postgresql(api, user) == 0


async def test_a_session_that_is_being_opened_waits_for_an_end(api: Api, user: User) -> None:
    """Else it would be opened at the epoch that is over."""
    pool, store = api.services.pools[0], api.services.sessions._store
    async with pool.acquire() as connection:
        async with connection.transaction():
            await connection.fetch(SIGN_OUT, user.id)
            opening = asyncio.create_task(store.open(b"opened late", user.id, 0))
            await until_waiting_for_a_lock(api, opening)
        assert await opening is None
    assert await sessions_in_postgresql(api, user) == 1


async def until_waiting_for_a_lock(api: Api, task: asyncio.Task[Any]) -> None:
    """Return when `task` waits for a lock in PostgreSQL, or has not waited and is done."""

    async def waits() -> bool:
        async with api.services.pools[0].acquire() as connection, connection.transaction():
            waiting: bool = await connection.fetchval(
                "SELECT EXISTS (SELECT FROM pg_stat_activity"
                " WHERE wait_event_type = 'Lock' AND datname = current_database())"
            )
        return waiting or task.done()

    await until("it waits for a lock", waits)


async def sessions_in_postgresql(api: Api, user: User) -> int:
    async with api.services.pools[0].acquire() as connection, connection.transaction():
        count: int = await connection.fetchval(
            "SELECT count(*) FROM sessions WHERE user_id = $1", user.id
        )
    return count


@pytest.mark.parametrize("change", [DISABLE, SIGN_OUT], ids=["disabled", "another epoch"])
async def test_no_session_is_opened_for_whom_it_is_over(
    ledger: Ledger, api: Api, user: User, change: str
) -> None:
    owner = await asyncpg.connect(
        ledger.platform.postgres_direct(database=ledger.databases[0]), ssl=False
    )
    epoch = await owner.fetchval(change, user.id)
    await owner.close()
    at_epoch = epoch if change == DISABLE else 0
    assert await api.services.sessions.open(user.id, at_epoch) is None
    assert await sessions_in_postgresql(api, user) == 1


async def test_signing_out_everywhere(api: Api, user: User) -> None:
    stolen = await thief_of(api, user)
    maybe = await user.client.post("/api/signout?everywhere=maybe")
    assert (maybe.status_code, maybe.json()["code"]) == (400, "invalid_parameter")
    answer = await user.client.post("/api/signout?everywhere")
    assert (answer.status_code, answer.json()) == (200, {"signedOut": True})
    assert await status_of(api, stolen) == 401
    assert await status_of(api, user.session_id) == 401
    assert (await sign_in(api, user)).status_code == 200


async def test_signing_out_everywhere_reaches_the_other_processes(ledger: Ledger) -> None:
    async with running(ledger.settings()) as here, running(ledger.settings()) as there:
        user = await here.user()
        stolen = await thief_of(there, user)
        assert (await user.client.post("/api/signout?everywhere")).status_code == 200
        assert await status_of(there, stolen) == 401


async def test_without_redis_it_says_how_long_it_may_take(ledger: Ledger) -> None:
    async with running(ledger.settings(redis="redis://127.0.0.1:1")) as api:
        user = await api.user()
        answer = await user.client.post("/api/signout?everywhere")
        assert answer.json() == {"signedOut": True, "effectiveWithinSeconds": 65}
        assert await status_of(api, user.session_id) == 401


async def test_sessions_are_listed_and_ended_one_by_one(api: Api, user: User) -> None:
    stolen = await thief_of(api, user)
    listed = (await user.client.get("/api/sessions")).json()["sessions"]
    assert [it.get("current", False) for it in listed] == [False, True]
    for session in listed:
        assert session["id"] not in (stolen, user.session_id)
        assert await api.services.redis.get(f"session:{session['id']}") is None
        assert session["createdAt"] <= session["lastUsedAt"] < session["expiresAt"]
    other = await api.user()
    foreign = await other.client.delete(f"/api/sessions/{listed[0]['id']}")
    assert (foreign.status_code, foreign.json()["code"]) == (404, "session_not_found")
    ended = await user.client.delete(f"/api/sessions/{listed[0]['id']}")
    assert (ended.status_code, ended.json()) == (200, {"signedOut": True})
    assert await status_of(api, stolen) == 401
    assert len((await user.client.get("/api/sessions")).json()["sessions"]) == 1
    again = await user.client.delete(f"/api/sessions/{listed[0]['id']}")
    assert again.status_code == 404
    foreign_origin = {"Origin": "http://elsewhere.test"}
    path = f"/api/sessions/{listed[1]['id']}"
    assert (await user.client.delete(path, headers=foreign_origin)).status_code == 403
    assert (await user.client.delete(path)).status_code == 200
    assert "sessionId" not in user.client.cookies
    assert await status_of(api, user.session_id) == 401


async def test_one_more_session_ends_the_oldest(ledger: Ledger) -> None:
    async with running(ledger.settings(sessions_per_user=3)) as api:
        user = await api.user()
        more = [await thief_of(api, user) for _ in range(3)]
        assert await status_of(api, user.session_id) == 401
        assert [await status_of(api, it) for it in more] == [200, 200, 200]


async def age(ledger: Ledger, api: Api, user: User, column: str, minutes: int) -> None:
    """Move a time of the user's sessions into the past, and empty the cache of them."""
    url = ledger.platform.postgres_direct(database=ledger.databases[0])
    owner = await asyncpg.connect(url, ssl=False)
    rows = await owner.fetch(
        f"UPDATE sessions SET {column} = {column} - $2 * interval '1 minute'"  # noqa: S608
        " WHERE user_id = $1 RETURNING token_hash",
        user.id,
        minutes,
    )
    await owner.close()
    for row in rows:
        await api.services.redis.delete(f"session:{row['token_hash'].hex()}")


async def test_the_absolute_limit_is_in_minutes(ledger: Ledger) -> None:
    async with running(ledger.settings(session_minutes=10)) as api:
        user = await api.user()
        signed_in = await sign_in(api, user)
        assert "Max-Age=600;" in signed_in.headers["set-cookie"]
        await age(ledger, api, user, "created_at", 9)
        assert (await user.client.get("/api/me")).status_code == 200
        await age(ledger, api, user, "created_at", 1)
        assert (await user.client.get("/api/me")).status_code == 401


async def test_a_session_that_nobody_uses_ends(ledger: Ledger) -> None:
    async with running(ledger.settings(session_idle_minutes=30)) as api:
        user, idle = await api.user(), await api.user()
        for _ in range(4):  # in use all the time: each use is noted
            await age(ledger, api, user, "last_used_at", 20)
            assert (await user.client.get("/api/me")).status_code == 200
        await age(ledger, api, idle, "last_used_at", 33)
        assert (await idle.client.get("/api/me")).status_code == 401
        assert (await sign_in(api, idle)).status_code == 200


async def test_expired_sessions_are_deleted_as_fast_as_they_come(api: Api, user: User) -> None:
    """More than one batch of them, and by two at a time."""
    async with api.services.pools[0].acquire() as connection, connection.transaction():
        await connection.execute(
            "INSERT INTO sessions (token_hash, user_id, expires_at)"
            " SELECT sha256(convert_to($1 || number, 'UTF8')), $2,"
            " clock_timestamp() - interval '1 second' FROM generate_series(1, 12000) AS number",
            user.id,
            user.id,
        )
    await asyncio.gather(*(api.services.sessions.forget_expired() for _ in range(2)))
    assert await sessions_in_postgresql(api, user) == 1


async def test_a_session_that_the_last_release_opened_is_valid(api: Api, user: User) -> None:
    """Its processes know no epoch, and run together with ours."""
    assert (await user.client.post("/api/signout?everywhere")).status_code == 200
    session_id = api.services.sessions.new_id()
    async with api.services.pools[0].acquire() as connection, connection.transaction():
        await connection.execute(
            "INSERT INTO sessions (token_hash, user_id, expires_at)"
            " VALUES ($1, $2, clock_timestamp() + interval '1 day')",
            hash_of(session_id),
            user.id,
        )
    assert await status_of(api, session_id) == 200


def hash_of(session_id: str) -> bytes:
    return blake2b(session_id.encode(), digest_size=32).digest()
