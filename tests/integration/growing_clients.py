"""Clients for growth: some wait for answers, some send chains of `202` without waiting.

A chain is what invariant 7 is about: deposit and withdraw the same amount in turn, each sent as
soon as the one before was acknowledged. Taken in any other order, a withdrawal finds nothing.
"""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Self
from uuid import uuid4

import httpx

from integration.bank import Bank
from microfin.postgres import queries
from support.waiting import until


@dataclass
class GrowingClients:
    """Several users over several API processes. `patient` ones repeat what was refused."""

    urls: list[str]
    users: int = 4
    patient: bool = False
    done: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    chains: dict[str, list[str]] = field(default_factory=dict)
    settled: list[str] = field(default_factory=list)
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _people: dict[httpx.AsyncClient, dict[str, str]] = field(default_factory=dict)

    async def __aenter__(self) -> Self:
        for number in range(self.users):
            session = httpx.AsyncClient(base_url=self.urls[number % len(self.urls)], timeout=30)
            person = {"name": "G", "email": f"{uuid4().hex}@example.com", "password": uuid4().hex}
            (await session.post("/api/signup", json=person)).raise_for_status()
            self._people[session] = {name: person[name] for name in ("email", "password")}
            waiting, chained, other = [await self._open(session) for _ in range(3)]
            self._tasks.append(asyncio.create_task(self._wait(session, waiting, other)))
            self._tasks.append(asyncio.create_task(self._chain(session, chained)))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stopping.set()
        await asyncio.gather(*self._tasks)

    @staticmethod
    async def _open(session: httpx.AsyncClient) -> str:
        answer = await session.post("/api/accounts", json={})
        number: str = answer.raise_for_status().json()["accountNumber"]
        return number

    async def progress(self, more: int = 80) -> None:
        """Wait until `more` operations were answered."""
        goal = self.done + more

        async def reached() -> bool:
            for task in self._tasks:
                if task.done():
                    task.result()
            return self.done >= goal

        await until(f"{more} more answers", reached, 60)

    async def is_refused(self) -> None:
        """Wait until an operation was refused: somebody noticed that a part is away."""

        async def noticed() -> bool:
            return bool(self.refused)

        await until("an operation is refused", noticed, 60)

    async def _wait(self, session: httpx.AsyncClient, account: str, other: str) -> None:
        """Deposit, transfer, withdraw: each after the answer to the one before."""
        while not self._stopping.is_set():
            await self._ask(session, "/api/deposit", {"accountNumber": account, "amount": "3"})
            await self._ask(
                session,
                "/api/transfer",
                {"senderAccountNumber": account, "receiverAccountNumber": other, "amount": "2"},
            )
            await self._ask(session, "/api/withdraw", {"accountNumber": account, "amount": "1"})

    async def _chain(self, session: httpx.AsyncClient, account: str) -> None:
        """Deposit and withdraw in turn, each sent as soon as the last was acknowledged."""
        chain = self.chains.setdefault(account, [])
        while not self._stopping.is_set():
            for path in ("/api/deposit", "/api/withdraw"):
                answer = await self._ask(
                    session, path, {"accountNumber": account, "amount": "5"}, prefer=True
                )
                chain.append(answer["operationId"])

    async def _ask(
        self, session: httpx.AsyncClient, path: str, body: dict[str, str], prefer: bool = False
    ) -> Any:
        headers = {"Idempotency-Key": uuid4().hex}
        if prefer:
            headers["Prefer"] = "respond-async"
        began = time.monotonic()
        while True:
            answer = await session.post(path, json=body, headers=headers)
            if answer.status_code in (200, 202):
                break
            self.refused[f"{answer.status_code} {answer.json().get('code')}"] += 1
            assert self.patient, answer.text
            assert answer.status_code in (401, 503), answer.text
            if answer.status_code == 401:  # a recovery of shard 0 ends all sessions
                await session.post("/api/signin", json=self._people[session])
            assert time.monotonic() - began < 60
            await asyncio.sleep(0.1)
        self.done += 1
        told = answer.json()
        if answer.status_code == 200:
            self.settled.append(told["operationId"])
        return told

    async def check(self, bank: Bank) -> None:
        """Every operation settled, the chains in their order."""
        everything = [*self.settled, *(it for chain in self.chains.values() for it in chain)]

        async def all_final() -> bool:
            found = await queries.operations(bank.pools, everything)
            return len(found) == len(everything) and all(
                it.operation.final for it in found.values()
            )

        await until("everything is final", all_final, 30)
        found = await queries.operations(bank.pools, everything)
        for told in everything:
            assert found[told].operation.status == "settled", found[told]
        for account, chain in self.chains.items():
            rows = await bank.fetch(
                "SELECT operation_id FROM entries WHERE account = $1 ORDER BY seq", account
            )
            assert [row["operation_id"].hex for row in rows] == chain, f"{account} was reordered"
