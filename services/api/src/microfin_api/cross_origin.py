"""Requests from other origins: refused where they would use a cookie to change something."""

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from microfin_api.client_address import TrustedProxies
from microfin_api.problems import Problem

_PREFLIGHT_SECONDS: Final = "600"


class OriginRule:
    """Knows which origins are ours: the request's own host, and those of the settings."""

    def __init__(self, allowed: str, proxies: TrustedProxies) -> None:
        self._allowed = frozenset(origin.rstrip("/").lower() for origin in allowed.split())
        self._proxies = proxies

    def check(self, request: Request) -> None:
        """Raise `Problem` where a browser says that another site's page sends this request.

        A Bearer token is no cookie: a page that knows one may send it from anywhere.
        """
        headers = request.headers
        if headers.get("authorization"):
            return
        origin = headers.get("origin")
        if origin is not None:
            if not self._is_ours(origin.lower(), request):
                raise Problem("cross_origin")
        elif headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            raise Problem("cross_origin")

    def _is_ours(self, origin: str, request: Request) -> bool:
        if origin in self._allowed:
            return True
        own = f"{self._proxies.scheme_of(request)}://{request.headers.get('host', '')}"
        return origin == own.lower()

    def headers_for(self, origin: str | None) -> list[tuple[bytes, bytes]]:
        """Return the headers that let a page of an allowed origin read our answer."""
        if origin is None or origin.lower() not in self._allowed:
            return []
        return [
            (b"access-control-allow-origin", origin.encode("latin-1")),
            (b"access-control-allow-credentials", b"true"),
            (b"access-control-expose-headers", b"Idempotency-Key, Idempotency-Replayed, Location"),
            (b"vary", b"Origin"),
        ]

    def preflight(self, request: Request, methods: str) -> Response | None:
        """Return the answer to a browser's question whether it may send, None if it was none."""
        origin = request.headers.get("origin", "").lower()
        asked = request.headers.get("access-control-request-method")
        if request.method != "OPTIONS" or asked is None or origin not in self._allowed:
            return None
        return Response(
            status_code=204,
            headers={
                "Access-Control-Allow-Methods": methods,
                "Access-Control-Allow-Headers": "Authorization, Content-Type, Idempotency-Key, "
                "Prefer",
                "Access-Control-Max-Age": _PREFLIGHT_SECONDS,
            },
        )
