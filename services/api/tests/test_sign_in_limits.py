"""How often signing in may fail, whose tries count, and what that never keeps out."""

from collections.abc import Sequence
from typing import Any

import httpx
import pytest
from api_under_test import PASSWORD, Ledger, running
from redis.asyncio import Redis

from microfin.redis_node import Node
from microfin.settings import ApiSettings


async def counters(settings: ApiSettings) -> dict[str, tuple[Redis, int]]:
    """Return the keys of limits with their nodes and times to live in seconds (-1: none)."""
    found = {}
    for url in settings.redis_urls:
        node = Redis.from_url(url)
        async for key in node.scan_iter("rate:*in:*"):
            found[key.decode()] = (node, await node.ttl(key))
    return found


async def attempt(client: httpx.AsyncClient, email: str, password: str, **headers: str) -> int:
    body = {"email": email, "password": password}
    return (await client.post("/api/signin", json=body, headers=headers)).status_code


async def test_a_counter_without_an_end_locks_nobody_out(ledger: Ledger) -> None:
    async with running(ledger.settings(sign_in_rate=2)) as api, api.client() as client:
        user = await api.user()
        assert await attempt(client, user.email, "wrong") == 401
        for key, (node, _) in (await counters(api.settings)).items():
            await node.set(key, "999999")
    async with running(api.settings) as api, api.client() as client:
        assert await attempt(client, user.email, "wrong") == 401
        assert await attempt(client, user.email, PASSWORD) == 200
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
