"""URLs that are not the ledger's shards in their order: everybody stops before writing anything."""

import asyncio
import os
import sys
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import httpx
import msgspec
import pytest
import pytest_asyncio

from microfin.postgres.connections import connect_shards
from microfin.postgres.shards import WrongShard
from microfin.process.settings import CommonSettings
from microfin_local.platform import Platform
from support.cli import Ran, microfin
from support.ports import free_port
from support.postgres_ledger import PostgresLedger, make_ledger_databases
from support.waiting import until

ANNA = "a" * 32
PARTITIONS = 4
TOPIC = "wrong_shard.commands"
WRONG = {
    "swapped": [1, 0],
    "one missing": [0],
    "the first one missing": [1],
    "one twice": [0, 0],
    "one too many": [0, 1, 1],
}


class Shards(msgspec.Struct):
    platform: Platform
    databases: list[str]
    unmade: str

    def urls(self, role: str, places: list[int]) -> str:
        databases = [self.databases[place] for place in places]
        return " ".join(self.platform.postgres_direct(0, role, name) for name in databases)

    def environment(self, role: str, places: list[int]) -> dict[str, str]:
        environment = self.platform.environment(role, self.databases[0], TOPIC)
        reader = "microfin_auditor" if role == "operator" else f"microfin_{role}"
        pooled = [
            self.platform.postgres_pooled(0, reader, self.databases[place]) for place in places
        ]
        return {
            **environment,
            "MICROFIN_DATABASES": " ".join(pooled),
            "MICROFIN_DATABASES_DIRECT": self.urls("microfin", places),
        }

    async def rows(self) -> list[Any]:
        """Return all that a process could have changed, of both databases."""
        found: list[Any] = []
        for url in self.urls("microfin", [0, 1]).split():
            connection = await asyncpg.connect(url, ssl=False)
            for table in ("partitions", "routing", "users", "leases", "accounts", "outcomes"):
                query = f"SELECT to_jsonb(t)::text FROM {table} t ORDER BY 1"  # noqa: S608 - ours
                found.append([row[0] for row in await connection.fetch(query)])
            await connection.close()
        return found


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shards(platform: Platform) -> Shards:
    databases = await make_ledger_databases(platform, "wrong_shard", 2, PARTITIONS)
    made = Shards(platform, databases, "wrong_shard_unmade")
    await platform.create_database(made.unmade)
    await platform.create_topic(TOPIC, PARTITIONS)
    async with PostgresLedger(made.urls("microfin_worker", [0, 1]).split(), PARTITIONS) as ledger:
        ledger.open(ANNA, "EUR", 0)
        ledger.open(ANNA, "EUR", 1)
        await ledger.drain()
    return made


@asynccontextmanager
async def running_worker(environment: dict[str, str], partition: int) -> AsyncIterator[str]:
    """Run a worker, and give the URL of its own pages."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "microfin_worker"),
        env={
            **os.environ,
            **environment,
            "MICROFIN_PARTITION": str(partition),
            "MICROFIN_WORKER_PORT": str(port),
        },
        stderr=DEVNULL,
        stdout=DEVNULL,
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        await process.wait()


async def reaches(url: str, states: set[str], of: str = "") -> dict[str, Any]:
    """Return the status of the worker at `url` once it is in one of `states`."""
    async with httpx.AsyncClient() as client:

        async def there() -> dict[str, Any] | None:
            status: dict[str, Any] = (await client.get(f"{url}/status")).json()
            return status if status["state"] in states and of in status["reason"] else None

        found: dict[str, Any] = await until(
            f"the worker is in one of {states}", there, not_yet=(httpx.TransportError,)
        )
    return found


@pytest.mark.parametrize(
    ("places", "partition"),
    [([1, 0], 0), ([1, 0], 1), ([0], 0), ([0], 1), ([0, 0], 1), ([1], 1), ([0, 1, 1], 2)],
)
async def test_a_worker_stops_before_it_claims(
    shards: Shards, places: list[int], partition: int
) -> None:
    before = await shards.rows()
    environment = shards.environment("worker", places)
    async with running_worker(environment, partition) as url:
        status = await reaches(url, {"stopped", "working", "retrying", "fenced"})
        assert status["state"] == "stopped", status
        assert "MICROFIN_DATABASES" in status["reason"]
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"{url}/readyz")).status_code == 503
    assert await shards.rows() == before


async def test_a_worker_waits_for_a_database_that_is_not_made(shards: Shards) -> None:
    environment = shards.environment("worker", [0])
    environment["MICROFIN_DATABASES"] = shards.platform.postgres_pooled(
        0, "microfin_worker", shards.unmade
    )
    async with running_worker(environment, 0) as url:
        status = await reaches(url, {"waiting", "retrying"}, of="migrate")
        assert status["state"] == "waiting", status


async def test_the_database_itself_refuses_a_partition_of_another_shard(shards: Shards) -> None:
    """For a worker of any release: its claim makes the row."""
    before = await shards.rows()
    connection = await asyncpg.connect(shards.urls("microfin_worker", [1]), ssl=False)
    try:
        with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="shard 1 of 2"):
            await connection.execute(
                "INSERT INTO partitions (partition, epoch, generation, partition_count)"
                " VALUES (6, 1, 1, 4)"
            )
    finally:
        await connection.close()
    assert await shards.rows() == before


COMMANDS = [
    *("audit", "routing show", "log trim --dry-run", "outbox list", "quarantine list"),
    *("recover check --shard 0", "migrate --partitions 12", "routing grow --partitions 12"),
]


@pytest.mark.parametrize("places", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("command", COMMANDS)
async def test_a_command_stops_before_it_writes(
    shards: Shards, command: str, places: list[int]
) -> None:
    before = await shards.rows()
    ran = await microfin(shards.environment("operator", places), *command.split())
    _assert_refused(ran)
    assert await shards.rows() == before


@pytest.mark.parametrize("places", [[1, 0], [1], [0]])
async def test_nobody_is_signed_up_on_another_shard(shards: Shards, places: list[int]) -> None:
    before = await shards.rows()
    arguments = ("user", "create", "eve@example.com", "--name", "Eve", "--password-stdin")
    ran = await microfin(
        shards.environment("operator", places), *arguments, typed="correct horse battery\n"
    )
    _assert_refused(ran)
    assert await shards.rows() == before


def _assert_refused(ran: Ran) -> None:
    assert ran.code == 2, (ran.output, ran.errors)
    assert "is shard" in ran.errors
    assert "in the same order as ever" in ran.errors


async def test_new_databases_are_distinguished_before_one_is_made(platform: Platform) -> None:
    name = "wrong_shard_new"
    await platform.create_database(name)
    url = platform.postgres_direct(0, database=name)
    ran = await microfin({"MICROFIN_DATABASES_DIRECT": f"{url} {url}"}, "migrate")
    assert ran.code == 2, (ran.output, ran.errors)
    assert "twice" in ran.errors
    connection = await asyncpg.connect(url, ssl=False)
    assert await connection.fetchval("SELECT to_regclass('routing')") is None
    await connection.close()


@pytest.mark.parametrize("places", WRONG.values(), ids=WRONG)
async def test_a_pool_gives_no_connection_to_another_shard(
    shards: Shards, places: list[int]
) -> None:
    """So the API's sessions and users, which ask no lease, are of the right shard too."""
    urls = shards.urls("microfin_api", places).split()
    pools = await connect_shards(urls, CommonSettings())
    refused = 0
    for pool in pools:
        try:
            async with pool.acquire():
                pass
        except WrongShard:
            refused += 1
        finally:
            pool.terminate()
    assert refused == sum(
        (place, len(places)) != (number, 2) for number, place in enumerate(places)
    )
