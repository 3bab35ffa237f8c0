"""Requests from other origins: refused if they would change something by a cookie."""

import ipaddress
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from microfin_api.http.client_address import TrustedProxies
from microfin_api.http.problems import Problem
from microfin_api.people.sessions import Sessions

_PREFLIGHT_SECONDS: Final = "600"
_MAY_READ: Final = (
    b"Idempotency-Key, Idempotency-Replayed, Location, Preference-Applied, Retry-After, "
    b"X-Request-Id"
)
_MAY_SEND: Final = (
    "Authorization, Cache-Control, Content-Type, Idempotency-Key, Prefer, X-Request-Id"
)
_PORTS: Final = {"http": 80, "https": 443}


class OriginRule:
    """Knows which origins are ours: the request's own host, and those of the settings."""

    def __init__(self, allowed: str, proxies: TrustedProxies) -> None:
        origins = (_canonical(origin.rstrip("/")) for origin in allowed.split())
        self._allowed = frozenset(origin for origin in origins if origin is not None)
        self._proxies = proxies

    def check(self, request: Request, sessions: Sessions | None = None) -> None:
        """Raise `Problem` if a browser says that a page of another site sends this request.

        With `sessions`, a Bearer token that is the request's session is allowed: it is not a
        cookie, and a page that knows one may send it from anywhere. Anything else in Authorization
        does not help, because then the cookie would count.
        """
        headers = request.headers
        origins = headers.getlist("origin")
        if origins:
            foreign = len(origins) > 1 or not self._is_ours(origins[0], request)
        else:
            foreign = headers.get("sec-fetch-site", "none") not in ("none", "same-origin")
        if foreign and not (sessions is not None and sessions.credential_of(request).by_bearer):
            raise Problem("cross_origin")

    def _is_ours(self, origin: str, request: Request) -> bool:
        canonical = _canonical(origin)
        if canonical is None:
            return False
        own = f"{self._proxies.scheme_of(request)}://{request.headers.get('host', '')}"
        return canonical in self._allowed or canonical == _canonical(own)

    def _is_allowed(self, origin: str) -> bool:
        canonical = _canonical(origin)
        return canonical is not None and canonical in self._allowed

    def headers_for(self, origin: str | None) -> list[tuple[bytes, bytes]]:
        """Return the headers that let a page of an allowed origin read our answer."""
        if origin is None or not self._is_allowed(origin):
            return []
        return [
            (b"access-control-allow-origin", origin.encode("latin-1")),
            (b"access-control-allow-credentials", b"true"),
            (b"access-control-expose-headers", _MAY_READ),
            (b"vary", b"Origin"),
        ]

    def preflight(self, request: Request, methods: str) -> Response | None:
        """Return the answer to a preflight request, None if it is not one that is allowed."""
        origin = request.headers.get("origin", "")
        asked = request.headers.get("access-control-request-method")
        if request.method != "OPTIONS" or asked is None or not self._is_allowed(origin):
            return None
        return Response(
            status_code=204,
            headers={
                "Access-Control-Allow-Methods": methods,
                "Access-Control-Allow-Headers": _MAY_SEND,
                "Access-Control-Max-Age": _PREFLIGHT_SECONDS,
            },
        )


@lru_cache(maxsize=1024)
def _canonical(origin: str) -> str | None:
    """Return an origin with its port, in one spelling; None if it is not one (RFC 6454)."""
    try:
        split = urlsplit(origin)
        port, host = split.port, split.hostname or ""
        if ":" in host:
            host = f"[{ipaddress.IPv6Address(host).compressed}]"
    except ValueError:
        return None
    usual = _PORTS.get(split.scheme)
    rest = origin.partition("://")[2]
    if usual is None or not host or any(it in rest for it in "/?#@\\ \t") or rest.endswith(":"):
        return None
    return f"{split.scheme}://{host}:{usual if port is None else port}"
