"""Sessions in the memory of API processes: few questions to Redis, no ended session accepted."""

import asyncio
import signal
from collections.abc import AsyncIterator
from hashlib import blake2b
from typing import Any

import httpx
import pytest
import pytest_asyncio
from redis.asyncio import Redis

from microfin.redis.ended_channel import (
    ASKED_AGAIN_SECONDS,
    CHANNEL,
    LISTENED,
    encode,
    ended_message,
)
from microfin.redis.guarded import RedisUnavailable
from microfin_api import metrics
from support.api_under_test import Api, Ledger, User, api_process, running
from support.signed_in import sign_in, status_of
from support.waiting import until, until_true


def hash_of(session_id: str) -> bytes:
    return blake2b(session_id.encode(), digest_size=32).digest()


def found_in(place: str) -> float:
    """Return how many sessions the APIs of this process have found in a place."""
    value: float = metrics.SESSIONS_FOUND.labels(place)._value.get()
    return value


async def remember(api: Api, session_id: str) -> None:
    """Use a session until its process remembers it."""

    async def is_remembered() -> bool:
        assert await status_of(api, session_id) == 200
        return api.services.sessions._memory.get(hash_of(session_id)) is not None

    await until("the process remembers the session", is_remembered)


async def sign_out(api: Api, session_id: str) -> dict[str, object]:
    async with api.client(Authorization=f"Bearer {session_id}") as bearer:
        answer = await bearer.post("/api/signout")
        assert answer.status_code == 200
        body: dict[str, object] = answer.json()
        return body


@pytest_asyncio.fixture
async def there(ledger: Ledger) -> AsyncIterator[Api]:
    async with running(ledger.settings()) as there:
        yield there


async def gets(ledger: Ledger) -> int:
    """Return how many GETs the nodes of Redis have done."""
    total = 0
    for url in ledger.platform.endpoints.redis:
        async with Redis.from_url(url) as node:
            stats = await node.info("commandstats")
            total += stats.get("cmdstat_get", {}).get("calls", 0)
    return total


async def test_most_requests_ask_nobody(ledger: Ledger, api: Api, user: User) -> None:
    await remember(api, user.session_id)
    before = await gets(ledger)
    for _ in range(60):
        assert (await user.client.get("/api/me")).status_code == 200
    assert await gets(ledger) - before < 30


async def test_a_session_is_remembered_where_it_was_opened(api: Api, user: User) -> None:
    await remember(api, user.session_id)
    session_id = (await sign_in(api, user)).json()["sessionId"]
    assert hash_of(session_id) in api.services.sessions._memory._sessions


async def test_a_session_is_not_remembered_if_one_ended_while_it_was_opened(
    api: Api, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be this one: all of the user's sessions may have ended."""
    await remember(api, user.session_id)
    sessions = api.services.sessions
    open_session = sessions._store.open

    async def open_while_one_ends(*arguments: Any) -> list[bytes] | None:
        ended = await open_session(*arguments)
        sessions._memory.forget([b"another"])
        return ended

    monkeypatch.setattr(sessions._store, "open", open_while_one_ends)
    session_id = (await sign_in(api, user)).json()["sessionId"]
    assert hash_of(session_id) not in sessions._memory._sessions


async def test_a_session_that_ends_here_is_refused_there(api: Api, there: Api, user: User) -> None:
    for _ in range(10):
        session_id = (await sign_in(api, user)).json()["sessionId"]
        await remember(there, session_id)
        assert await sign_out(api, session_id) == {"signedOut": True}
        assert await status_of(there, session_id) == 401


async def test_an_end_that_does_not_arrive_is_waited_for(api: Api, there: Api, user: User) -> None:
    """What Redis sends to a process may be late; then the process does not believe its memory."""
    await remember(there, user.session_id)
    member = there.services.sessions._ended._member
    assert member is not None
    subscription = member._channel._subscription  # type: ignore[attr-defined]
    subscription._transport.pause_reading()
    assert await sign_out(api, user.session_id) == {"signedOut": True}
    assert await status_of(there, user.session_id) == 401
    subscription._transport.resume_reading()
    await until_true(lambda: there.services.sessions._memory.get(b"") is None)
    assert await status_of(there, user.session_id) == 401


async def test_a_lost_subscription_makes_it_forget(
    ledger: Ledger, api: Api, there: Api, user: User
) -> None:
    for _ in range(5):
        session_id = (await sign_in(api, user)).json()["sessionId"]
        await remember(there, session_id)
        for url in ledger.platform.endpoints.redis:
            async with Redis.from_url(url) as node:
                await node.client_kill_filter(_type="pubsub")
        assert await sign_out(api, session_id) == {"signedOut": True}
        assert await status_of(there, session_id) == 401


async def test_a_process_that_was_stopped_accepts_no_ended_session(
    ledger: Ledger, api: Api, user: User
) -> None:
    async with (
        api_process(ledger) as (url, process),
        httpx.AsyncClient(base_url=url, timeout=30) as client,
    ):
        client.headers["Authorization"] = f"Bearer {user.session_id}"

        async def is_answered() -> bool:
            return (await client.get("/api/me")).status_code == 200

        await until("the process answers", is_answered, not_yet=(httpx.TransportError,))
        for _ in range(20):
            assert await is_answered()
            await asyncio.sleep(0.1)
        shown = (await client.get("/metrics")).text
        [line] = [it for it in shown.splitlines() if 'found_total{place="memory"}' in it]
        assert float(line.split()[-1]) > 0
        process.send_signal(signal.SIGSTOP)
        try:
            asking = asyncio.create_task(client.get("/api/me"))  # waits in the socket
            assert await sign_out(api, user.session_id) == {"signedOut": True}
        finally:
            process.send_signal(signal.SIGCONT)
        await asking  # began before the end: either answer is right
        assert (await client.get("/api/me")).status_code == 401


async def test_an_end_that_only_redis_knows_is_felt_soon(
    api: Api, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process of the release before says nothing on the channel. Nor does one that cannot."""

    async def refuse(*_: object) -> None:
        raise RedisUnavailable("refused")

    async with running(api.settings) as there:
        await remember(there, user.session_id)
        with monkeypatch.context() as patch:
            patch.setattr(api.services.redis, "publish", refuse)
            patch.setattr("microfin_api.people.membership.Membership.say", refuse)
            answer = await sign_out(api, user.session_id)
        assert answer == {"signedOut": True, "effectiveWithinSeconds": ASKED_AGAIN_SECONDS}
        await asyncio.sleep(ASKED_AGAIN_SECONDS)
        assert await status_of(there, user.session_id) == 401


async def test_forged_messages_sign_nobody_out(api: Api, user: User) -> None:
    await remember(api, user.session_id)
    forged = encode(ended_message([hash_of(user.session_id)]))
    node = await api.services.redis._owner(CHANNEL)
    async with Redis.from_url(f"redis://{node.name}") as attacker:
        pipeline = attacker.pipeline(transaction=False)
        for _ in range(3_000):
            pipeline.execute_command("SPUBLISH", CHANNEL, forged)
        await pipeline.execute()
    for _ in range(20):
        assert await status_of(api, user.session_id) == 200
    await until_true(lambda: api.services.sessions._ended._member is None)  # it does not listen
    assert await sign_out(api, user.session_id) == {"signedOut": True}
    assert await status_of(api, user.session_id) == 401


async def test_without_redis_nothing_is_remembered(ledger: Ledger) -> None:
    async with running(ledger.settings(redis="redis://127.0.0.1:1")) as alone:
        user = await alone.user()
        before = found_in("postgres")
        for _ in range(3):
            assert await status_of(alone, user.session_id) == 200
        assert found_in("postgres") - before == 3
        assert len(alone.services.sessions._memory) == 0


async def test_on_a_quiet_platform_nobody_is_waited_for(
    ledger: Ledger, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the key nobody believes a memory, so an end is known at once."""

    async with running(ledger.settings()) as quiet:

        async def nobody_listens() -> bool:
            return await quiet.services.redis.get(LISTENED) is None

        await until("nobody listens", nobody_listens)
        with monkeypatch.context() as patch:
            patch.setattr(
                "microfin_api.people.ended_sessions.KNOWN_SECONDS", None
            )  # a wait would fail
            assert await sign_out(quiet, user.session_id) == {"signedOut": True}
        assert await status_of(quiet, user.session_id) == 401


async def test_an_idle_process_leaves_the_channel(
    ledger: Ledger, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("microfin_api.people.ended_sessions._QUIET_BEATS", 2)
    async with running(ledger.settings()) as idle:
        ended = idle.services.sessions._ended
        await remember(idle, user.session_id)
        await until_true(lambda: ended._member is None)
        assert len(idle.services.sessions._memory) == 0
        await remember(idle, user.session_id)
