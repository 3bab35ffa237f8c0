"""What each request passes first: overload, trailing slashes, headers of all answers, metrics."""

import time
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from microfin_api import metrics
from microfin_api.documentation import STYLE_HASH
from microfin_api.http.draining import Drain
from microfin_api.http.problems import Problem
from microfin_api.http.request_id import HEADER as REQUEST_ID_HEADER
from microfin_api.http.request_id import REQUEST_ID, read_request_id
from microfin_api.people.cross_origin import OriginRule
from microfin_api.phases import CommandPhases

_POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{STYLE_HASH}'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_HEADERS: Final[list[tuple[bytes, bytes]]] = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"content-security-policy", _POLICY.encode()),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
_NO_STORE: Final = (b"cache-control", b"no-store")
_CLOSE: Final = (b"connection", b"close")
_NO_ROUTE: Final = "none"
_ALWAYS_ANSWERED: Final = frozenset({"/healthz", "/readyz", "/metrics"})
"""An overloaded process must not seem dead: a restart would not help."""


class RequestMiddleware:
    """The outermost layer of the application."""

    def __init__(self, app: ASGIApp, origins: OriginRule, request_limit: int, drain: Drain) -> None:
        self.drain = drain
        self._app = app
        self._origins = origins
        self._request_limit = request_limit
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (or the lifespan, which just passes)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = scope["begun"] = time.monotonic()
        status = 500
        path: str = scope["path"]
        if path.endswith("/") and path != "/":
            scope["path"] = path.rstrip("/") or "/"
        added = self._begin(scope)

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *added]
                if self.drain.begun:
                    message["headers"].append(_CLOSE)
            await send(message)

        app = self._app
        if self._under_way >= self._request_limit and scope["path"] not in _ALWAYS_ANSWERED:
            metrics.OVERLOADED.inc()
            app = Problem("overloaded").answer()
        self._under_way += 1
        try:
            await app(scope, receive, send_with_headers)
        finally:
            self._under_way -= 1
            ended = time.monotonic()
            count_answer(scope, status, ended - begun)
            phases: CommandPhases | None = scope.get("phases")
            if phases is not None:
                phases.ended(ended)

    def _begin(self, scope: Scope) -> list[tuple[bytes, bytes]]:
        """Set the request's id, and return the headers that every answer to it has."""
        headers = list(_HEADERS)
        sent_ids: list[bytes] = []
        if scope["path"].startswith("/api/"):
            headers.append(_NO_STORE)
        for name, value in scope["headers"]:
            if name == b"origin":
                headers += self._origins.headers_for(value.decode("latin-1"))
            elif name == REQUEST_ID_HEADER:
                sent_ids.append(value)
        identity = read_request_id(sent_ids)
        REQUEST_ID.set(identity)
        headers.append((REQUEST_ID_HEADER, identity.encode()))
        return headers


def count_answer(scope: Scope, status: int, seconds: float) -> None:
    """Count one answered request by its route."""
    route = scope.get("route")
    template = getattr(route, "path", _NO_ROUTE)
    method = scope["method"] if template != _NO_ROUTE else "any"
    number, times = metrics.answered(method, template, status)
    number.inc()
    times.observe(seconds)
