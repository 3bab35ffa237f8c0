"""Clients of the whole platform: they move money through nginx, repeat every request that ended
without a final answer with the same key, and remember the answers."""

import asyncio
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from decimal import Decimal
from random import Random
from typing import Any, Self
from uuid import uuid4

import asyncpg
import httpx

from microfin.postgres import queries
from microfin_local.platform import Platform
from microfin_tools.audit import audit

FINAL = {"settled", "rejected", "refunded"}
GIVE_UP = 60.0  # seconds until an operation must have become final


@dataclass
class FinalAnswer:
    """The final answer about one operation, with its request."""

    operation: str
    status: str
    path: str
    body: dict[str, str]


@dataclass
class Clients:
    """A few users with two accounts each, all moving money at once."""

    platform: Platform
    users: int = 6
    seed: int = 1
    finals: list[FinalAnswer] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    accounts: list[str] = field(default_factory=list)
    longest: float = 0.0
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _sessions: list[httpx.AsyncClient] = field(default_factory=list)

    async def __aenter__(self) -> Self:
        for _ in range(self.users):
            session = httpx.AsyncClient(base_url=self.platform.endpoints.api, timeout=20)
            self._sessions.append(session)
            person = {"name": "T", "email": f"{uuid4().hex}@example.com", "password": uuid4().hex}
            (await session.post("/api/signup", json=person)).raise_for_status()
            for _ in range(2):
                opened = await session.post("/api/accounts", json={})
                self.accounts.append(opened.raise_for_status().json()["accountNumber"])
        self._tasks = [asyncio.create_task(self._move(n)) for n in range(self.users)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stopping.set()
        try:
            await asyncio.gather(*self._tasks)
        finally:
            await asyncio.gather(*(session.aclose() for session in self._sessions))

    async def progress(self, more: int = 20, seconds: float = 30.0) -> float:
        """Wait until `more` operations became final; return the seconds until then."""
        began, goal = time.monotonic(), len(self.finals) + more
        while len(self.finals) < goal:
            assert time.monotonic() - began < seconds, f"no progress: {self.answers}"
            for task in self._tasks:
                if task.done():
                    task.result()
            await asyncio.sleep(0.02)
        return time.monotonic() - began

    async def _move(self, user: int) -> None:
        random = Random(self.seed * 1_000 + user)
        session = self._sessions[user]
        own = self.accounts[user * 2 : user * 2 + 2]
        while not self._stopping.is_set():
            path, body = _draw(random, own, self.accounts)
            began = time.monotonic()
            await self._until_final(session, path, body)
            self.longest = max(self.longest, time.monotonic() - began)

    async def _until_final(
        self, session: httpx.AsyncClient, path: str, body: dict[str, str]
    ) -> None:
        key, deadline = uuid4().hex, time.monotonic() + GIVE_UP
        while True:
            assert time.monotonic() < deadline, f"{path} {key} never became final: {self.answers}"
            answer = await _ask(session.post(path, json=body, headers={"Idempotency-Key": key}))
            self.answers[str(answer.status_code) if answer else "none"] += 1
            if answer is not None and answer.status_code == 202:
                answer = await self._follow(session, answer.headers["Location"], deadline)
            if answer is not None and answer.status_code in (200, 422):
                shown = answer.json()
                status = shown.get("operationStatus", shown["status"])  # a problem's is HTTP's
                assert status in FINAL, shown
                self.finals.append(FinalAnswer(shown["operationId"], status, path, body))
                return
            assert answer is None or answer.status_code in (502, 503, 504), answer.text
            await asyncio.sleep(0.1)

    async def _follow(
        self, session: httpx.AsyncClient, location: str, deadline: float
    ) -> httpx.Response | None:
        while time.monotonic() < deadline:
            answer = await _ask(session.get(location))
            if answer is not None and answer.status_code == 200:
                if answer.json()["status"] in FINAL:
                    return answer
            elif answer is not None:
                assert answer.status_code in (502, 503, 504), answer.text
            await asyncio.sleep(0.1)
        return None

    async def check(self) -> None:
        """Audit, and compare all answers and every balance with the database."""
        urls = self.platform.endpoints.postgres_shards
        pools = [await asyncpg.create_pool(url, min_size=0, max_size=2) for url in urls]
        try:
            await _outboxes_empty(pools)
            report = await audit(urls, at_rest=True)
            assert report.ok, report.violations
            found = await queries.operations(pools, [final.operation for final in self.finals])
            assert len({final.operation for final in self.finals}) == len(self.finals)
            for final in self.finals:
                assert found[final.operation].operation.status == final.status, final
            expected = self._expected_balances()
            for pool in pools:
                for row in await pool.fetch(
                    "SELECT number, balance FROM accounts WHERE number = ANY($1)", self.accounts
                ):
                    assert Decimal(row["balance"]) / 100 == expected[row["number"]]
        finally:
            for pool in pools:
                pool.terminate()

    def _expected_balances(self) -> dict[str, Decimal]:
        balances: dict[str, Decimal] = defaultdict(Decimal)
        for final in self.finals:
            if final.status != "settled":
                continue
            amount, body = Decimal(final.body["amount"]), final.body
            if final.path == "/api/deposit":
                balances[body["accountNumber"]] += amount
            elif final.path == "/api/withdraw":
                balances[body["accountNumber"]] -= amount
            else:
                balances[body["senderAccountNumber"]] -= amount
                balances[body["receiverAccountNumber"]] += amount
        return balances


def _draw(random: Random, own: list[str], everyone: list[str]) -> tuple[str, dict[str, str]]:
    account, amount = random.choice(own), f"{random.randint(1, 2_000) / 100:.2f}"
    kind = random.choice(["deposit", "deposit", "withdraw", "transfer", "transfer"])
    if kind != "transfer":
        return f"/api/{kind}", {"accountNumber": account, "amount": amount}
    receiver = random.choice([it for it in everyone if it != account])
    return "/api/transfer", {
        "senderAccountNumber": account,
        "receiverAccountNumber": receiver,
        "amount": amount,
    }


async def _ask(call: Any) -> httpx.Response | None:
    try:
        answer: httpx.Response = await call
    except httpx.HTTPError:
        return None
    return answer


async def _outboxes_empty(pools: list[Any]) -> None:
    for pool in pools:
        async with asyncio.timeout(30):
            while await pool.fetchval("SELECT count(*) FROM outbox"):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
