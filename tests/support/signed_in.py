"""Sessions of a user: sign in once more, and see whether a session is still good."""

import httpx

from support.api_under_test import PASSWORD, Api, User

NEW_PASSWORD = "another password"


async def status_of(api: Api, session_id: str) -> int:
    """Return the status of an answer to a request with this session."""
    async with api.client(Authorization=f"Bearer {session_id}") as bearer:
        return (await bearer.get("/api/me")).status_code


async def sign_in(api: Api, user: User, password: str = PASSWORD) -> httpx.Response:
    """Sign a user in, and return the answer."""
    async with api.client() as client:
        body = {"email": user.email, "password": password}
        return await client.post("/api/signin", json=body)


async def thief_of(api: Api, user: User) -> str:
    """Sign in once more, as a thief would, and let the cache know the session."""
    session_id: str = (await sign_in(api, user)).json()["sessionId"]
    assert await status_of(api, session_id) == 200
    return session_id
