"""An API in this process on the real platform, with a worker process on each partition."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import httpx

from microfin.process.settings import ApiSettings
from microfin_api.app import create_app
from microfin_api.services import Services
from microfin_local.platform import Platform
from microfin_tools.migrations.run import migrate
from support.ports import free_port
from support.waiting import until_ready, until_true

PARTITIONS = 2
PASSWORD = "correct horse"
ORIGIN = "http://api.test"


class Ledger:
    """A database for each shard and a topic of its own, with its workers."""

    def __init__(self, platform: Platform, folder: Path, shards: int = 1) -> None:
        self.platform = platform
        self.name = f"api_{uuid4().hex[:10]}"
        self.databases = [f"{self.name}_{shard}" for shard in range(shards)]
        self.folder = folder
        self._workers: list[asyncio.subprocess.Process] = []

    async def __aenter__(self) -> Self:
        await self.platform.create_topic(self.name, PARTITIONS)
        for database in self.databases:
            await self.platform.create_database(database)
        urls = [self.platform.postgres_direct(database=database) for database in self.databases]
        await asyncio.to_thread(migrate, urls, PARTITIONS)
        await self.start_workers()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop_workers()

    async def start_workers(self) -> None:
        """Start the workers and wait until they are ready."""
        ports: list[int] = []
        for partition in range(PARTITIONS):
            port = free_port()
            environment = {
                **os.environ,
                **self.environment("worker"),
                "MICROFIN_PARTITION": str(partition),
                "MICROFIN_WORKER_PORT": str(port),
            }
            with (self.folder / "workers.log").open("ab") as log:
                worker = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "microfin_worker", env=environment, stdout=log, stderr=log
                )
            self._workers.append(worker)
            ports.append(port)
        await asyncio.gather(*(until_ready(f"http://127.0.0.1:{port}") for port in ports))

    def environment(self, role: str) -> dict[str, str]:
        """Return the settings of a process of this ledger."""
        environments = [
            self.platform.environment(role, database, self.name) for database in self.databases
        ]
        databases = " ".join(environment["MICROFIN_DATABASES"] for environment in environments)
        return {**environments[0], "MICROFIN_DATABASES": databases}

    async def stop_workers(self) -> None:
        workers, self._workers = self._workers, []
        for worker in workers:
            worker.terminate()
        await asyncio.gather(*(worker.wait() for worker in workers))

    async def stop_worker(self, partition: int) -> None:
        """Stop one of the workers that `start_workers` has started."""
        worker = self._workers.pop(partition)
        worker.terminate()
        await worker.wait()

    def settings(self, **others: Any) -> ApiSettings:
        """Return settings for an API on this ledger, with passwords that cost little."""
        values = {
            name.removeprefix("MICROFIN_").lower(): value
            for name, value in self.environment("api").items()
        }
        cheap = {"argon2_memory": 8, "argon2_time": 1, "sign_up_address_rate": 0}
        return ApiSettings(**{**values, **cheap, **others})


class Api:
    """An API in this process."""

    def __init__(self, settings: ApiSettings) -> None:
        self.settings = settings
        self.app = create_app(settings)

    @property
    def services(self) -> Services:
        services: Services = self.app._app.state.services  # type: ignore[attr-defined]
        return services

    def client(self, **headers: str) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app),
            base_url=ORIGIN,
            headers={"Content-Type": "application/json", **headers},
            timeout=30,
        )

    async def user(self) -> "User":
        """Sign somebody up."""
        client = self.client()
        email = f"{uuid4().hex}@example.com"
        body = {"name": "Anna", "email": email, "password": PASSWORD}
        answer = await client.post("/api/signup", json=body)
        assert answer.status_code == 200, answer.text
        return User(client, answer.json())


class User:
    """Somebody who is signed in by cookie."""

    def __init__(self, client: httpx.AsyncClient, signed_in: dict[str, str]) -> None:
        self.client = client
        self.id = signed_in["userId"]
        self.email = signed_in["email"]
        self.session_id = signed_in["sessionId"]

    async def account(self, currency: str = "EUR", balance: str = "") -> str:
        """Open an account, with money on it."""
        answer = await self.client.post("/api/accounts", json={"currency": currency})
        assert answer.status_code == 201, answer.text
        number: str = answer.json()["accountNumber"]
        if balance:
            await self.deposit(number, balance)
        return number

    async def deposit(self, number: str, amount: str) -> dict[str, Any]:
        body = {"accountNumber": number, "amount": amount}
        answer = await self.client.post("/api/deposit", json=body)
        assert answer.status_code == 200, answer.text
        settled: dict[str, Any] = answer.json()
        return settled

    async def balance(self, number: str) -> str:
        answer = await self.client.get(f"/api/accounts/{number}")
        assert answer.status_code == 200, answer.text
        balance: str = answer.json()["balance"]
        return balance


@contextlib.asynccontextmanager
async def running(settings: ApiSettings) -> AsyncIterator[Api]:
    """Start an API, wait until it is ready, and stop it in the end."""
    api = Api(settings)
    await api.services.start()
    try:
        await until_true(lambda: not api.services.missing())
        yield api
    finally:
        await api.services.stop()


@contextlib.asynccontextmanager
async def api_process(
    ledger: Ledger, **others: str
) -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    """Run `python -m microfin_api` on a ledger; give its URL and the process."""
    port = free_port()
    environment = {
        **os.environ,
        **ledger.environment("api"),
        "MICROFIN_API_PORT": str(port),
        **others,
    }
    with (ledger.folder / f"api-{port}.log").open("wb") as log:
        running = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "microfin_api", env=environment, stderr=log
        )
    try:
        yield f"http://127.0.0.1:{port}", running
    finally:
        if running.returncode is None:
            running.kill()
        await running.wait()
