"""Answers of the API: those before the outcome, and problems."""

from typing import Any

import httpx

from support.api_under_test import User
from support.waiting import until

ASYNC = {"Prefer": "respond-async"}


async def finally_of(user: User, location: str, status: str) -> dict[str, str]:
    """Ask at `location` until the operation has `status`."""

    async def ask() -> dict[str, str] | None:
        answer = await user.client.get(location)
        assert answer.status_code == 200, answer.text
        shown: dict[str, str] = answer.json()
        return shown if shown["status"] == status else None

    shown: dict[str, str] = await until(f"{location} is {status}", ask, seconds=120)
    return shown


async def until_decided(user: User, location: str) -> httpx.Response:
    """Ask at `location` until the operation is no longer under way, or there is a problem."""

    async def ask() -> httpx.Response | None:
        answer = await user.client.get(location)
        under_way = answer.json().get("status") in ("accepted", "in_transit")
        return None if under_way else answer

    answer: httpx.Response = await until(f"{location} is decided", ask, seconds=120)
    return answer


async def all_pages(user: User, path: str, member: str, limit: int) -> list[dict[str, Any]]:
    """Return what is in `member` of all pages of a list; `path` has a query already."""
    listed: list[dict[str, Any]] = []
    cursor: str | None = ""
    while cursor is not None:
        more = f"&cursor={cursor}" if cursor else ""
        answer = await user.client.get(f"{path}&limit={limit}{more}")
        assert answer.status_code == 200, answer.text
        page = answer.json()
        assert len(page[member]) <= limit
        listed += page[member]
        cursor = page.get("nextCursor")
    return listed


def problem_of(answer: httpx.Response, status: int) -> dict[str, Any]:
    """Expect a problem of this status, and return it."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    return problem
