"""The credential that a request sends: a Bearer token, or cookies.

A browser may send several cookies of one name (a stale one of another path, one that a page of
another host of ours has set), so all are checked, up to a bound.
"""

from typing import Final

import msgspec
from starlette.requests import Request

COOKIE: Final = "sessionId"

_LOOKED_AT: Final = 16
"""Cookies of our name that are checked: to find that one is not ours costs a hash."""


class Credential(msgspec.Struct, frozen=True, gc=False):
    """Session ids that we made, in the order in which to try them, and how they came."""

    session_ids: tuple[str, ...]
    by_bearer: bool


def bearer_of(request: Request) -> str:
    """Return the request's Bearer token, '' if it has none."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def cookies_of(request: Request) -> list[str]:
    """Return the different values of our cookies, in the order in which they came."""
    found: dict[str, None] = {}
    for header in request.headers.getlist("cookie"):
        for pair in header.split(";"):
            name, _, value = pair.partition("=")
            if name.strip() == COOKIE and len(found) < _LOOKED_AT:
                found[value.strip().strip('"')] = None
    return list(found)
