"""The whole platform, as `make run` starts it, with one part failing while clients run.

Clients repeat what was not answered finally; in the end every operation took effect exactly once,
every balance is what the answers add up to, and the audit finds nothing.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import asyncpg
import pytest

from integration.clients import Clients
from microfin_local.configuration import Configuration
from microfin_local.credentials import SUPERUSER
from microfin_local.platform import Platform

Fault = Callable[[Platform], Awaitable[None]]


@pytest.fixture(scope="module")
async def platform(
    real_components: None, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Platform]:
    configuration = Configuration(
        state=tmp_path_factory.mktemp("whole"),
        workers=4,
        shards=2,
        api_processes=2,
        random_ports=True,
    )
    async with Platform(configuration) as whole:
        yield whole


async def kill_postgres(platform: Platform) -> None:
    await platform.kill("postgres-0")


async def restart_postgres(platform: Platform) -> None:
    await asyncio.gather(platform.terminate("postgres-0"), platform.terminate("postgres-1"))


async def restart_pgbouncer(platform: Platform) -> None:
    await platform.kill("pgbouncer")


async def restart_broker(platform: Platform) -> None:
    await platform.terminate("kafka-1")


async def kill_workers(platform: Platform) -> None:
    for number in range(4):
        await platform.kill(f"worker-{number}")


async def kill_apis(platform: Platform) -> None:
    """Wherever each request is: before, between or after its produce and its answer."""
    for number in (0, 1, 0, 1):
        await platform.kill(f"api-{number}")
        await asyncio.sleep(0.7)


async def freeze_worker(platform: Platform) -> None:
    await platform.pause("worker-1")
    await asyncio.sleep(4)
    await platform.resume("worker-1")


async def freeze_redis(platform: Platform) -> None:
    for number in range(3):
        await platform.pause(f"redis-{number}")
    await asyncio.sleep(4)
    for number in range(3):
        await platform.resume(f"redis-{number}")


async def stop_redis(platform: Platform) -> None:
    for number in range(3):
        await platform.stop_process(f"redis-{number}")
    await asyncio.sleep(4)
    for number in range(3):
        await platform.start_process(f"redis-{number}")


async def freeze_postgres(platform: Platform) -> None:
    await platform.pause("postgres-1")
    await asyncio.sleep(4)
    await platform.resume("postgres-1")


async def demote_postgres(platform: Platform) -> None:
    """As after a failover, when the pooler still leads to the old primary (SQLSTATE 25006), and
    before that every session is ended (57P01)."""
    connection = await asyncpg.connect(platform.postgres_direct(0, role=SUPERUSER))
    try:
        await connection.execute("ALTER DATABASE microfin SET default_transaction_read_only = on")
        await _end_sessions(connection)
        await asyncio.sleep(3)
        await connection.execute("ALTER DATABASE microfin RESET default_transaction_read_only")
        await _end_sessions(connection)
    finally:
        await connection.close()


async def _end_sessions(connection: asyncpg.Connection) -> None:
    await connection.execute("SET default_transaction_read_only = off")
    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = 'microfin' AND pid <> pg_backend_pid()"
    )


async def freeze_pgbouncer(platform: Platform) -> None:
    await platform.pause("pgbouncer")
    await asyncio.sleep(7)
    await platform.resume("pgbouncer")


async def freeze_broker(platform: Platform) -> None:
    await platform.pause("kafka-1")
    await asyncio.sleep(4)
    await platform.resume("kafka-1")


FAULTS: list[Fault] = [
    freeze_pgbouncer,
    freeze_broker,
    demote_postgres,
    kill_workers,
    freeze_worker,
    kill_apis,
    restart_pgbouncer,
    kill_postgres,
    restart_postgres,
    freeze_postgres,
    restart_broker,
    freeze_redis,
    stop_redis,
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
async def test_money_is_right_after(platform: Platform, fault: Fault) -> None:
    async with Clients(platform, seed=FAULTS.index(fault)) as clients:
        await clients.progress()
        await fault(platform)
        await clients.progress(more=60)
    await clients.check()


@pytest.mark.parametrize("fault", [freeze_redis, stop_redis], ids=lambda fault: fault.__name__)
async def test_without_redis_money_moves_and_people_stay_signed_in(
    platform: Platform, fault: Fault
) -> None:
    async with Clients(platform, users=3, seed=99) as clients:
        await clients.progress()
        failing = asyncio.create_task(fault(platform))
        await asyncio.sleep(0.5)
        before = len(clients.told)
        await failing
        assert len(clients.told) > before, "nothing was settled while Redis was away"
    await clients.check()
    assert "401" not in clients.answers
