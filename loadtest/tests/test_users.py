"""Preparing users where a bank lets one address sign up so many a minute."""

import httpx

from microfin_loadtest.users import _make_users


async def test_a_limit_on_sign_ups_is_waited_for() -> None:
    asked: list[str] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        if asked.count("/api/signup") == 1 and request.url.path == "/api/signup":
            return httpx.Response(429, headers={"Retry-After": "0"})
        return httpx.Response(200, json={"sessionId": "s", "accountNumber": "100000000008"})

    transport = httpx.MockTransport(answer)
    async with httpx.AsyncClient(transport=transport, base_url="http://bank.test") as client:
        [user] = await _make_users(client, 1)
    assert user["accounts"] == ["100000000008"] * 2
    assert asked.count("/api/signup") == 2
