"""More requests than a process may have under way are refused before anything is done for them."""

import asyncio

import httpx
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from microfin_api.http.client_address import TrustedProxies
from microfin_api.http.draining import Drain
from microfin_api.middleware import RequestMiddleware
from microfin_api.people.cross_origin import OriginRule


class SlowApplication:
    """Answers nothing until the test lets it."""

    def __init__(self) -> None:
        self.answering = asyncio.Event()
        self.served = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.served += 1
        if not scope["path"].startswith("/api/"):
            await Response("well")(scope, receive, send)
            return
        await self.answering.wait()
        await Response("done")(scope, receive, send)


async def test_the_requests_over_the_limit_are_refused_at_once_and_later_ones_served() -> None:
    slow = SlowApplication()
    middleware = RequestMiddleware(slow, OriginRule("", TrustedProxies("")), 3, Drain())
    transport = httpx.ASGITransport(middleware)
    async with httpx.AsyncClient(transport=transport, base_url="http://api.test") as client:
        waiting = [asyncio.create_task(client.post("/api/deposit")) for _ in range(3)]
        while slow.served < 3:  # noqa: ASYNC110 - the application is what is looked at
            await asyncio.sleep(0)
        refused = await client.post("/api/deposit")
        assert refused.status_code == 503
        assert refused.json()["code"] == "overloaded"
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.headers["x-content-type-options"] == "nosniff"
        assert slow.served == 3

        for path in ("/healthz", "/readyz", "/metrics", "/healthz/"):
            assert (await client.get(path)).status_code == 200

        slow.answering.set()
        assert {(await answer).status_code for answer in waiting} == {200}
        assert (await client.post("/api/deposit")).status_code == 200


async def test_a_request_that_fails_is_no_longer_under_way() -> None:
    async def failing(_: Scope, __: Receive, ___: Send) -> None:
        raise RuntimeError("planted")

    middleware = RequestMiddleware(failing, OriginRule("", TrustedProxies("")), 1, Drain())
    transport = httpx.ASGITransport(middleware, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://api.test") as client:
        codes = [(await client.post("/api/deposit")).status_code for _ in range(3)]
    assert codes == [500, 500, 500]
