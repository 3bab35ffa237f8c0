"""Decision and batch commit: how many operations workers settle on this machine's PostgreSQL.

The worker, decision core, store and PostgreSQL are real (fsync and synchronous_commit on); the log
is in memory, without Redis and API. The result is compared with pgbench, which runs right before
and right after on the same server. A run counts only if the audit after it finds nothing.

`direct` connects as pgbench does, with prepared statements, which newer poolers allow (PgBouncer
since 1.21, CloudNativePG's). `pooled` goes through this machine's PgBouncer, and prepares nothing
if that is Debian 12's 1.18.
"""

import asyncio
import time
from typing import Any, Literal

from microfin.ledger.account_number import derive_account_number
from microfin.ledger.operation import operation_id
from microfin.ledger.routing import partition_of
from microfin.ledger.wire import Command
from microfin.postgres.connections import connect_pool
from microfin.process.clock import SystemClock
from microfin.process.settings import WorkerSettings
from microfin_local.benchmarks import pgbench
from microfin_local.benchmarks.memory_edges import MemoryLog, MemoryTopic, NoCache, NoReplies
from microfin_local.platform import Platform
from microfin_tools.audit import audit
from microfin_tools.migrations.run import migrate
from microfin_worker.limits import Limits
from microfin_worker.ports import Ports
from microfin_worker.postgres_store import PostgresStore
from microfin_worker.worker import Worker

Kind = Literal["deposit", "transfer"]
Way = Literal["direct", "pooled"]

_USER = "b" * 32
_ACCOUNTS = 2_000
_PGBENCH_SECONDS = 5


async def measure(
    platform: Platform, run: int, kind: Kind, way: Way, operations: int
) -> dict[str, Any]:
    """Settle `operations` of `kind` and return the rates and their ratio to pgbench's.

    Deposits have one worker. Transfers have four, and every transfer crosses partitions.
    """
    database = f"bench_{kind}_{way}_{run}"
    partitions = 1 if kind == "deposit" else 4
    await platform.create_database(database)
    url = platform.postgres_direct(0, database=database)
    await asyncio.to_thread(migrate, [url], partitions)
    await pgbench.prepare(url)
    before = await pgbench.transactions_per_second(url, _PGBENCH_SECONDS)
    settings = _settings(platform, database, way)
    settled, cpu = await _rate_and_cpu(settings, kind, partitions, operations)
    after = await pgbench.transactions_per_second(url, _PGBENCH_SECONDS)
    report = await audit([url], at_rest=True)
    yardstick = (before + after) / 2
    return {
        "settled_per_second": round(settled),
        "worker_cpu_microseconds": round(cpu, 1),
        "pgbench_transactions_per_second": round(yardstick),
        "ratio": round(settled / yardstick, 2),
        "audit_ok": report.ok,
        "operations": operations,
    }


def _settings(platform: Platform, database: str, way: Way) -> WorkerSettings:
    role = "microfin_worker"
    if way == "pooled":
        url = platform.postgres_pooled(0, role, database)
        return WorkerSettings(databases=url, database_connections=2)
    url = platform.postgres_direct(0, role, database)
    return WorkerSettings(databases=url, database_connections=2, database_statement_cache=100)


async def _rate_and_cpu(
    settings: WorkerSettings, kind: Kind, partitions: int, operations: int
) -> tuple[float, float]:
    """Return the operations settled in a second, and the workers' microseconds of CPU for one."""
    topic = MemoryTopic(partitions)
    accounts = _open_and_fund(topic, partitions)
    workers = [await _worker(settings, topic, partition) for partition in range(partitions)]
    tasks = [asyncio.create_task(worker.run()) for worker in workers]
    await _until_drained(workers, topic)
    for number in range(operations):
        _request(topic, partitions, kind, accounts, number)
    began, spent_before = time.monotonic(), time.process_time()
    await _until_drained(workers, topic)
    seconds, spent = time.monotonic() - began, time.process_time() - spent_before
    for worker in workers:
        worker.stop()
    await asyncio.gather(*tasks)
    return operations / seconds, 1_000_000 * spent / operations


async def _worker(settings: WorkerSettings, topic: MemoryTopic, partition: int) -> Worker:
    pool = await connect_pool(settings.database_urls[0], settings)
    ports = Ports(
        MemoryLog(topic, partition),
        PostgresStore(pool, partition, 1),
        NoReplies(),
        NoCache(),
        SystemClock(),
    )
    return Worker(partition, 1, ports, Limits())


def _open_and_fund(topic: MemoryTopic, partitions: int) -> list[list[str]]:
    """Request accounts and a deposit into each; return their numbers by partition."""
    accounts: list[list[str]] = [[] for _ in range(partitions)]
    for number in range(_ACCOUNTS):
        operation = operation_id(_USER, str(number), "open", "")
        account = derive_account_number(operation, 0)
        partition = partition_of(account, partitions)
        accounts[partition].append(account)
        topic.append(partition, _command("open", account, operation, currency="EUR"))
        fund = operation_id(_USER, "fund", "deposit", account)
        topic.append(partition, _command("deposit", account, fund, amount="1000000"))
    return accounts


def _request(
    topic: MemoryTopic, partitions: int, kind: Kind, accounts: list[list[str]], number: int
) -> None:
    source = number % partitions
    account = accounts[source][number * 7919 % len(accounts[source])]
    fields = {"amount": "1.5"}
    if kind == "transfer":
        others = accounts[(source + 1 + number % 3) % partitions]
        fields["counterparty"] = others[number * 104_729 % len(others)]
    operation = operation_id(_USER, f"run {number}", kind, account)
    topic.append(source, _command(kind, account, operation, **fields))


def _command(kind: Any, account: str, operation: str, **fields: str) -> Command:
    return Command(
        kind=kind,
        leg="request",
        operation=operation,
        account=account,
        user=_USER,
        generation=1,
        deadline=2**52,
        reply="nobody/waits",
        **fields,  # type: ignore[arg-type]
    )


async def _until_drained(workers: list[Worker], topic: MemoryTopic) -> None:
    """Wait until every record is committed, the credits of transfers included."""
    while any(  # noqa: ASYNC110 - the worker has no event for this
        worker.status.next_offset < len(records) or worker.undelivered
        for worker, records in zip(workers, topic.records, strict=True)
    ):
        await asyncio.sleep(0.002)
