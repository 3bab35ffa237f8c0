"""A bank for one test: its own databases and topic on the session's real platform, workers and
API processes as real processes, and a client that remembers all answers."""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import asyncpg
import httpx

from microfin.kafka.producer import Appended, CommandProducer
from microfin.ledger.account_number import derive_account_number
from microfin.ledger.operation import Operation, operation_id
from microfin.ledger.routing import partition_of
from microfin.ledger.wire import Command
from microfin.postgres import queries
from microfin.process.settings import CommonSettings
from microfin_local.credentials import SUPERUSER
from microfin_local.platform import Platform
from microfin_tools.audit import AuditReport, audit
from microfin_tools.migrations.run import migrate
from support.ports import free_port
from support.waiting import until

HERE = Path(__file__).parent
ANNA, BERT = "a" * 32, "b" * 32


class Process:
    """A worker or an API process of a bank."""

    def __init__(
        self, name: str, command: list[str], environment: dict[str, str], log: Path
    ) -> None:
        self.name = name
        self.url = f"http://127.0.0.1:{environment['PORT']}"
        self.log = log
        self._command = command
        self._environment = environment
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> Self:
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                env={**os.environ, **self._environment},
                stdout=log,
                stderr=log,
                cwd=HERE,
            )
        return self

    @property
    def running(self) -> asyncio.subprocess.Process:
        assert self._process is not None
        return self._process

    @property
    def ended(self) -> bool:
        return self._process is None or self._process.returncode is not None

    async def get(self, path: str) -> httpx.Response | None:
        try:
            async with httpx.AsyncClient(timeout=2) as client:
                return await client.get(f"{self.url}{path}")
        except httpx.HTTPError:
            return None

    async def ready(self, seconds: float = 30.0) -> Self:
        async def ask() -> bool:
            assert not self.ended, f"{self.name} ended: {self.log.read_text()[-2000:]}"
            answer = await self.get("/readyz")
            return answer is not None and answer.status_code == 200

        await until(f"{self.name} is ready", ask, seconds)
        return self

    async def status(self) -> dict[str, Any]:
        answer = await self.get("/status")
        return answer.json() if answer is not None else {}

    async def reaches(self, state: str, seconds: float = 30.0) -> dict[str, Any]:
        seen: dict[str, Any] = {}

        async def ask() -> dict[str, Any] | None:
            seen.update(await self.status())
            return seen if seen.get("state") == state else None

        try:
            return await until(f"{self.name} is {state}", ask, seconds)
        except AssertionError as late:
            raise AssertionError(f"{late}: {seen}\n{self.log.read_text()[-4000:]}") from late

    def send_signal(self, number: signal.Signals) -> None:
        self.running.send_signal(number)

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        if not self.ended:
            self.send_signal(number)
            if number != signal.SIGKILL:
                self.send_signal(signal.SIGCONT)
        return await asyncio.wait_for(self.running.wait(), 20)

    async def ends(self, seconds: float = 30.0) -> int:
        return await asyncio.wait_for(self.running.wait(), seconds)

    async def freezes(self) -> None:
        """Wait until the process has stopped itself (state T)."""

        async def ask() -> bool:
            stat = Path(f"/proc/{self.running.pid}/stat").read_text()  # noqa: ASYNC240 - procfs
            return stat.rpartition(")")[2].split()[0] == "T"

        await until(f"{self.name} freezes", ask)


class Bank:
    """See the module. Use as `async with Bank(platform, partitions=2) as bank`."""

    def __init__(
        self, platform: Platform, folder: Path, partitions: int = 2, shards: int = 1
    ) -> None:
        self.platform = platform
        self.folder = folder
        self.partitions = partitions
        self.shards = shards
        self.name = f"bank_{uuid4().hex[:10]}"
        self.processes: list[Process] = []
        self.acknowledged: dict[str, Appended] = {}
        self.pools: list[Any] = []
        self.producer = CommandProducer(self.settings(), "test-client")

    async def __aenter__(self) -> Self:
        await asyncio.gather(
            self.platform.create_database(self.name),
            self.platform.create_topic(self.topic, self.partitions),
        )
        await self.migrate()
        self.pools = [
            await asyncpg.create_pool(url, min_size=0, max_size=2, timeout=5) for url in self.urls
        ]
        await self.producer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(
            *(process.end(signal.SIGKILL) for process in self.processes if not process.ended)
        )
        await self.producer.stop()
        for pool in self.pools:
            pool.terminate()
        await asyncio.gather(
            *(self._drop(shard) for shard in range(self.platform.configuration.shards))
        )

    async def _drop(self, shard: int) -> None:
        """Drop the database and the pooler's connections to it: their number is limited."""
        url = self.platform.postgres_direct(shard, role=SUPERUSER, database="postgres")
        connection = await asyncpg.connect(url, timeout=10)
        try:
            await connection.execute(f'DROP DATABASE IF EXISTS "{self.name}" WITH (FORCE)')
        finally:
            await connection.close()

    async def migrate(self) -> None:
        await asyncio.to_thread(migrate, self.urls, self.partitions)

    @property
    def urls(self) -> list[str]:
        return [self.platform.postgres_direct(n, database=self.name) for n in range(self.shards)]

    @property
    def topic(self) -> str:
        return self.name

    def environment(self, role: str) -> dict[str, str]:
        environment = self.platform.environment(role, self.name, self.topic)
        for name in ("MICROFIN_DATABASES", "MICROFIN_DATABASES_DIRECT"):
            if name in environment:
                environment[name] = " ".join(environment[name].split()[: self.shards])
        return environment

    def settings(self) -> CommonSettings:
        values = {
            name.removeprefix("MICROFIN_").lower(): value
            for name, value in self.environment("operator").items()
        }
        return CommonSettings(**values)

    # Processes ------------------------------------------------------------------------------

    async def worker(
        self,
        partition: int,
        fault: str = "",
        *,
        python: str = sys.executable,
        command: list[str] | None = None,
        **settings: str,
    ) -> Process:
        """Start a worker; with `fault`, one that is killed (or see `faulty_worker`) there.

        `python` runs another release's, `command` something else in a worker's place.
        """
        port = free_port()
        environment = {
            **self.environment("worker"),
            "MICROFIN_PARTITION": str(partition),
            "MICROFIN_WORKER_PORT": str(port),
            "PORT": str(port),
            **settings,
        }
        command = command or [python, "-m", "microfin_worker"]
        if fault:
            environment["FAULT_POINT"] = fault
            command = [sys.executable, "faulty_worker.py"]
        return await self._launch(f"worker-{partition}", command, environment)

    async def workers(self) -> list[Process]:
        """Start a healthy worker on each partition and wait until all are ready."""
        workers = [await self.worker(partition) for partition in range(self.partitions)]
        await asyncio.gather(*(worker.ready() for worker in workers))
        return workers

    async def api(self, *, python: str = sys.executable, **settings: str) -> Process:
        """Start an API process and wait until it is ready; `python` runs another release's."""
        port = free_port()
        environment = {
            **self.environment("api"),
            "MICROFIN_API_PORT": str(port),
            "PORT": str(port),
            "MICROFIN_SIGN_UP_ADDRESS_RATE": "0",  # all clients here have one address
            **settings,
        }
        command = [python, "-m", "microfin_api"]
        return await (await self._launch("api", command, environment)).ready()

    async def _launch(self, name: str, command: list[str], environment: dict[str, str]) -> Process:
        log = self.folder / f"{self.name}-{len(self.processes)}-{name}.log"
        process = Process(name, command, environment, log)
        self.processes.append(process)
        return await process.start()

    # Operations, straight to the log --------------------------------------------------------

    async def append(self, command: Command, partition: int | None = None) -> str:
        """Append a command as an API process would, and remember that it was acknowledged."""
        if partition is None:
            partition = partition_of(command.account, self.partitions)
        appended = await asyncio.wait_for(self.producer.send(partition, command), 30)
        if command.leg == "request":
            self.acknowledged[command.operation] = appended
        return command.operation

    async def open(self, key: str, user: str = ANNA, currency: str = "EUR") -> str:
        """Ask for an account, and return its number, which need not be open yet."""
        command = self.opening(key, user, currency)
        await self.append(command)
        return command.account

    def opening(self, key: str, user: str = ANNA, currency: str = "EUR") -> Command:
        """Return the command that opens an account."""
        operation = operation_id(user, key, "open", "")
        return Command(
            kind="open",
            leg="request",
            operation=operation,
            account=derive_account_number(operation, 0),
            user=user,
            currency=currency,
            generation=1,
        )

    async def open_on(self, partition: int, balance: str = "", key: str = "") -> str:
        """Open an account of Anna's on a partition, with a balance; return its number."""
        index = 0
        while True:
            operation = operation_id(ANNA, f"{key}-{partition}-{index}", "open", "")
            if partition_of(derive_account_number(operation, 0), self.partitions) == partition:
                break
            index += 1
        number = await self.open(f"{key}-{partition}-{index}")
        if balance:
            await self.deposit(number, balance, f"fund {key}")
        return number

    def request(self, kind: Any, account: str, key: str, **fields: Any) -> Command:
        user = fields.setdefault("user", ANNA)
        fields.setdefault("operation", operation_id(user, key, kind, account))
        fields.setdefault("generation", 1)
        return Command(
            kind=kind,
            leg="request",
            account=account,
            reply="nobody/waits",
            **fields,
        )

    async def deposit(self, account: str, amount: str, key: str) -> str:
        return await self.append(self.request("deposit", account, key, amount=amount))

    async def withdraw(self, account: str, amount: str, key: str) -> str:
        return await self.append(self.request("withdraw", account, key, amount=amount))

    async def transfer(self, source: str, destination: str, amount: str, key: str) -> str:
        return await self.append(
            self.request("transfer", source, key, counterparty=destination, amount=amount)
        )

    async def set_state(self, account: str, state: Any, key: str) -> str:
        return await self.append(self.request("set_state", account, key, state=state, user=""))

    async def traffic(self, name: str, accounts: int = 12, operations: int = 150) -> list[str]:
        """Append a mix of operations over new accounts, many at a time; return the accounts."""
        numbers = await asyncio.gather(*(self.open(f"{name} {n}") for n in range(accounts)))
        await asyncio.gather(*(self.deposit(it, "100", f"{name} fund") for it in numbers))
        for start in range(0, operations, 25):
            await asyncio.gather(
                *(self._move(numbers, f"{name} {n}", n) for n in range(start, start + 25))
            )
        return list(numbers)

    async def _move(self, numbers: list[str], key: str, n: int) -> None:
        account, other = numbers[n % len(numbers)], numbers[n * 7 % len(numbers)]
        if n % 3 == 0:
            await self.deposit(account, "1.5", key)
        elif n % 3 == 1:
            await self.withdraw(account, "0.5", key)
        else:
            await self.transfer(account, other, "2.25", key)

    # Looking --------------------------------------------------------------------------------

    async def operation(self, operation: str) -> Operation | None:
        found = (await queries.operations(self.pools, [operation])).get(operation)
        return found.operation if found is not None else None

    async def final(self, operation: str, seconds: float = 30.0) -> Operation:
        async def ask() -> Operation | None:
            found = await self.operation(operation)
            return found if found is not None and found.final else None

        return await until(f"operation {operation} is final", ask, seconds)

    async def fetch(self, query: str, *arguments: Any) -> list[Any]:
        rows = []
        for pool in self.pools:
            rows += await pool.fetch(query, *arguments)
        return rows

    async def execute(self, statement: str) -> None:
        """Execute a statement on every shard, as the owner."""
        for pool in self.pools:
            await pool.execute(statement)

    async def balance(self, account: str) -> int:
        rows = await self.fetch("SELECT balance FROM accounts WHERE number = $1", account)
        return rows[0]["balance"]

    async def check(self, seconds: float = 60.0) -> AuditReport:
        """Wait until all is at rest; then the audit, and every acknowledged operation once."""

        async def at_rest() -> bool:
            found = await queries.operations(self.pools, list(self.acknowledged))
            return len(found) == len(self.acknowledged) and all(
                it.operation.final for it in found.values()
            )

        try:
            await until("every acknowledged operation is final", at_rest, seconds, pause=0.2)
        except AssertionError as late:
            raise AssertionError(f"{late}\n{await self._evidence()}") from late

        async def all_sent() -> bool:
            return not await self.fetch("SELECT 1 FROM outbox LIMIT 1")

        await until("the outboxes are empty", all_sent, seconds)
        report = await audit(self.urls, at_rest=True)
        assert report.ok, report.violations
        return report

    async def _evidence(self) -> str:
        """Return which operations are not final, and what each process says of itself."""
        found = await queries.operations(self.pools, list(self.acknowledged))
        missing = [it for it in self.acknowledged if it not in found]
        moving = [it.operation for it in found.values() if not it.operation.final]
        lines = [f"not decided: {missing[:5]}", f"not final: {moving[:5]}"]
        lines += [f"outbox: {row}" for row in await self.fetch("SELECT * FROM outbox LIMIT 5")]
        lines += [f"partition: {row}" for row in await self.fetch("SELECT * FROM partitions")]
        for process in self.processes:
            ended = process.running.returncode if process.ended else ""
            lines.append(f"{process.name} {ended} {await process.status()}")
            lines.append(process.log.read_text()[-3000:])
        return "\n".join(lines)


MakeBank = Callable[..., Awaitable[Bank]]
