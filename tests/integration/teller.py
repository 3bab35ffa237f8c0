"""A client that deposits again and again, and measures how long each deposit takes to settle."""

import asyncio
import time
from uuid import uuid4

import httpx

from support.waiting import until


class Teller:
    """Deposits 1.00 again and again, each until it is settled, and measures the time."""

    def __init__(self, url: str) -> None:
        self.client = httpx.AsyncClient(base_url=url, timeout=20)
        self.settled = 0
        self.longest = 0.0
        self.refusals: list[str] = []

    async def open(self) -> str:
        person = {"name": "T", "email": f"{uuid4().hex}@example.com", "password": uuid4().hex}
        (await self.client.post("/api/signup", json=person)).raise_for_status()
        opened = await self.client.post("/api/accounts", json={})
        number: str = opened.raise_for_status().json()["accountNumber"]
        return number

    async def deposit_for_ever(self, number: str) -> None:
        while True:
            key, began = uuid4().hex, time.monotonic()
            while not await self._deposit(number, key):  # noqa: ASYNC110 - a client polls
                await asyncio.sleep(0.05)
            self.longest = max(self.longest, time.monotonic() - began)
            self.settled += 1
            await asyncio.sleep(0.02)

    async def _deposit(self, number: str, key: str) -> bool:
        answer = await self.client.post(
            "/api/deposit",
            json={"accountNumber": number, "amount": "1.00"},
            headers={"Idempotency-Key": key},
        )
        if answer.status_code != 200:
            self.refusals.append(answer.text)
        return answer.status_code == 200

    async def progress(self) -> None:
        goal = self.settled + 10

        async def ask() -> bool:
            return self.settled >= goal

        await until(f"money moves {self.refusals[-1:]}", ask)

    async def balance(self, number: str) -> str:
        answer = await self.client.get(f"/api/accounts/{number}")
        balance: str = answer.json()["balance"]
        return balance
