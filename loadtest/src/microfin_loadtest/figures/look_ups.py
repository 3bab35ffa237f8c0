"""How long the API takes to find something in a ledger's past: at random, one after another."""

import asyncio
import json
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import quantiles
from typing import Final
from uuid import UUID

import httpx

from microfin.postgres.connections import Connection, connect
from microfin_loadtest.errors import LoadImpossible
from microfin_local.endpoints import Endpoints

_TIMES: Final = 300
_OWNERS: Final = 50

_SOME_OWNERS: Final = """
SELECT id, email FROM users WHERE email LIKE 'past-%' ORDER BY random() LIMIT $1
"""
# Owners of a past have no password: they get the one of a prepared user.
_LET_THEM_SIGN_IN: Final = """
UPDATE users SET password_hash = (SELECT password_hash FROM users WHERE email = $1)
WHERE id = ANY($2::uuid[])
"""
_ACCOUNTS: Final = """
SELECT number, owner, seq, opened_at FROM accounts WHERE owner = ANY($1::uuid[]) AND seq > 0
"""
# Who receives money does not see the sender's operation; the first entry is of the owner's own one.
_OWN_OPERATION: Final = """
SELECT operation_id FROM entries WHERE account = $1 AND (seq = $2 OR seq = 1)
    AND (kind IN ('deposit', 'withdraw') OR amount < 0)
ORDER BY seq DESC LIMIT 1
"""


@dataclass(frozen=True)
class _Account:
    number: str
    owner: UUID
    seq: int
    opened: datetime


@dataclass(frozen=True)
class Request:
    """A path that an owner gets."""

    owner: UUID
    path: str


def look_up(endpoints: Endpoints, users: Path) -> dict[str, dict[str, float]]:
    """Return p50 and p99, in milliseconds, of statements, operations and balances of the past on
    the first shard.

    `users` is the file of prepared users. Each kind looks at other accounts. Raises LoadImpossible
    if an answer is not 200.
    """
    chance = random.Random(0)  # noqa: S311 - it protects nothing
    user = json.loads(users.read_text())["users"][0]
    owners, requests = asyncio.run(requests_into_past(endpoints.postgres, user["email"], chance))
    found = {}
    with httpx.Client(base_url=endpoints.api, timeout=60) as client:
        sessions = {
            owner: _sign_in(client, email, user["password"]) for owner, email in owners.items()
        }
        for kind, of_kind in requests.items():
            milliseconds = [_time(client, it.path, sessions[it.owner]) for it in of_kind]
            found[kind] = percentiles(milliseconds)
    return found


def percentiles(milliseconds: Sequence[float]) -> dict[str, float]:
    """Return p50 and p99."""
    cuts = quantiles(milliseconds, n=100, method="inclusive")
    return {"p50": round(cuts[49], 2), "p99": round(cuts[98], 2)}


def _sign_in(client: httpx.Client, email: str, password: str) -> str:
    answer = client.post("/api/signin", json={"email": email, "password": password})
    client.cookies.clear()
    if answer.status_code != 200:
        raise LoadImpossible(f"An owner of the past could not sign in: {answer.text}")
    session: str = answer.json()["sessionId"]
    return session


def _time(client: httpx.Client, path: str, session: str) -> float:
    began = time.perf_counter()
    answer = client.get(path, headers={"Authorization": f"Bearer {session}"})
    took = time.perf_counter() - began
    if answer.status_code != 200:
        raise LoadImpossible(f"{path} answered {answer.status_code}: {answer.text}")
    return 1000 * took


async def requests_into_past(
    url: str, prepared: str, chance: random.Random
) -> tuple[Mapping[UUID, str], Mapping[str, Sequence[Request]]]:
    """Return some owners of the past with their e-mail addresses, and their requests by kind.

    They can sign in from now on, with the password of the user with the address `prepared`. Raises
    LoadImpossible if there is no past.
    """
    connection = await connect(url)
    try:
        owners = {row["id"]: row["email"] for row in await connection.fetch(_SOME_OWNERS, _OWNERS)}
        await connection.execute(_LET_THEM_SIGN_IN, prepared, list(owners))
        rows = await connection.fetch(_ACCOUNTS, list(owners))
        if not rows:
            raise LoadImpossible("There is no past to look into: fill the ledger first.")
        accounts = [_Account(*row) for row in rows]
        statement, operation, balance = (chance.choices(accounts, k=_TIMES) for _ in range(3))
        requests = {
            "statement": [Request(it.owner, _entries(it)) for it in statement],
            "operation": [await _own_operation(connection, it, chance) for it in operation],
            "balance_at": [
                Request(it.owner, f"{_entries(it)}?at={_moment(it, chance)}") for it in balance
            ],
        }
    finally:
        await connection.close()
    return owners, requests


def _entries(account: _Account) -> str:
    return f"/api/accounts/{account.number}/entries"


def _moment(account: _Account, chance: random.Random) -> str:
    seconds = (datetime.now(UTC) - account.opened).total_seconds() * chance.random()
    return (account.opened + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


async def _own_operation(
    connection: Connection, account: _Account, chance: random.Random
) -> Request:
    seq = 1 + int(account.seq * chance.random())
    operation = await connection.fetchval(_OWN_OPERATION, account.number, seq)
    return Request(account.owner, f"/api/operations/{operation.hex}")
