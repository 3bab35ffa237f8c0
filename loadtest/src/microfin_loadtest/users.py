"""Prepared users: signed up, each with two funded accounts, and stored for the next run."""

import asyncio
import json
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import httpx

from microfin_loadtest.errors import LoadImpossible
from microfin_local.files import PRIVATE, write_atomically

#: The balance of each account: enough for years of runs, and far below an account's limit.
FUNDS: Final = "10000000.00"
_AT_ONCE: Final = 8

User = dict[str, Any]


async def prepare_users(
    api: str,
    file: Path,
    number: int,
    form: dict[str, Any],
    say: Callable[[str], None],
    platform: str = "",
) -> None:
    """Write `number` users with funded accounts to `file`, unless the last run's can be used.

    `form` are settings that the users depend on, such as the cost of their password hashes;
    `platform` identifies the platform if its address changes with each run. Raises LoadImpossible
    if the API refuses.
    """
    wanted = {"api": platform or api, "number": number, **form}
    async with httpx.AsyncClient(base_url=api, timeout=60) as client:
        try:
            if await _are_known(client, _remembered_users(file, wanted)):
                return
            say(f"preparing {number} users with two funded accounts each")
            users = await _make_users(client, number)
        except httpx.HTTPError as error:
            raise LoadImpossible(
                f"Users could not be prepared at {api} ({error}). Does the platform work? "
                "`make status` shows it."
            ) from error
    write_atomically(file, json.dumps({**wanted, "users": users}), PRIVATE)


async def sign_in_all(api: str, file: Path) -> list[tuple[str, str]]:
    """Return a session and the first account of each user of `file`.

    Raises LoadImpossible if the API refuses.
    """
    users, signed_in = json.loads(file.read_text())["users"], []  # noqa: ASYNC240 - a small file
    async with httpx.AsyncClient(base_url=api, timeout=30) as client:
        for user in users:
            credentials = {"email": user["email"], "password": user["password"]}
            answer = await client.post("/api/signin", json=credentials)
            if answer.status_code != 200:
                raise LoadImpossible(f"A prepared user could not sign in: {answer.text}")
            client.cookies.clear()
            signed_in.append((answer.json()["sessionId"], user["accounts"][0]))
    return signed_in


async def prepared_sessions(api: str, file: Path, number: int) -> list[tuple[str, str]]:
    """Return a session and a funded account of each of `number` users, made if need be."""
    await prepare_users(api, file, number, {}, lambda _: None)
    return await sign_in_all(api, file)


def _remembered_users(file: Path, wanted: dict[str, Any]) -> list[User]:
    """Return the last run's users; none if there are none or this run needs others."""
    if not file.exists():
        return []
    kept = json.loads(file.read_text())
    users: list[User] = kept.pop("users")
    return users if kept == wanted else []


async def _are_known(client: httpx.AsyncClient, users: list[User]) -> bool:
    """Return whether there are users whom this platform knows, with room for more accounts.

    The platform may have been cleaned. `mix.js` opens two accounts in each iteration, and a user
    may have MICROFIN_ACCOUNTS_PER_USER of them.
    """
    if not users:
        return False
    last = users[-1]
    credentials = {"email": last["email"], "password": last["password"]}
    signed_in = await client.post("/api/signin", json=credentials)
    if signed_in.status_code != 200:
        return False
    headers = {"Authorization": f"Bearer {signed_in.json()['sessionId']}"}
    listed = await client.get("/api/accounts", headers=headers)
    client.cookies.clear()
    return listed.status_code == 200 and "nextCursor" not in listed.json()


async def _make_users(client: httpx.AsyncClient, number: int) -> list[User]:
    gate = asyncio.Semaphore(_AT_ONCE)

    async def make() -> User:
        async with gate:
            return await _make_user(client)

    return list(await asyncio.gather(*(make() for _ in range(number))))


async def _make_user(client: httpx.AsyncClient) -> User:
    email, password = f"load-{secrets.token_hex(8)}@example.com", secrets.token_hex(12)
    person = {"name": "Load", "email": email, "password": password}
    session = (await _post(client, "/api/signup", "", person))["sessionId"]
    accounts = []
    for _ in range(2):
        account = (await _post(client, "/api/accounts", session, {}))["accountNumber"]
        funds = {"accountNumber": account, "amount": FUNDS}
        await _post(client, "/api/deposit", session, funds)
        accounts.append(account)
    return {"email": email, "password": password, "accounts": accounts}


async def _post(
    client: httpx.AsyncClient, path: str, session: str, body: dict[str, str]
) -> dict[str, Any]:
    """Return the answer to a request whose operation must be finished: 202 is not enough."""
    headers = {"Authorization": f"Bearer {session}"} if session else {}
    while True:
        answer = await client.post(path, json=body, headers=headers)
        # The client would send a user's cookies for all users; only the header names the session.
        client.cookies.clear()
        if answer.status_code != 429:
            break
        # All users have one address, and a bank limits the sign-ups of an address per minute.
        await asyncio.sleep(int(answer.headers["Retry-After"]))
    if answer.status_code not in (200, 201):
        raise LoadImpossible(
            f"A user could not be prepared: {path} answered {answer.status_code}: {answer.text}"
        )
    result: dict[str, Any] = answer.json()
    return result
