"""Certificates that end: renewed while money moves, and renewed too late.

Three brokers, of which each is restarted: it then lets nobody in whose certificate has ended.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiokafka
import pytest

from integration.bank import Process
from integration.certificates import NAMES, Mounted, TlsBank
from integration.teller import Teller
from microfin_local import database_home
from microfin_local.configuration import DATA_COMPONENTS, Configuration
from microfin_local.platform import Platform
from microfin_local.wait import accepts_connections
from support.certificates import Authority, write_servers
from support.waiting import until

BROKERS = ("kafka-1", "kafka-2", "kafka-3")
AUTHORITY = Authority()


@pytest.fixture(scope="module")
async def secured(
    real_components: None, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Platform]:
    """The data components, with three brokers that have a TLS listener each."""
    state = tmp_path_factory.mktemp("secured")
    write_servers(state / "tls", AUTHORITY.issue("microfin-kafka", *NAMES), [AUTHORITY])
    configuration = Configuration(
        state=state / "platform",
        brokers=3,
        components=DATA_COMPONENTS,
        random_ports=True,
        tls=state / "tls",
    )
    try:
        async with Platform(configuration) as platform:
            yield platform
    finally:
        database_home.forget(configuration.state)


@pytest.fixture
async def bank(secured: Platform, tmp_path: Path) -> AsyncIterator[TlsBank]:
    bank = TlsBank(secured, tmp_path, partitions=2)
    bank.mounts = [
        Mounted(tmp_path / role, f"microfin-{role}", AUTHORITY) for role in ("worker", "api")
    ]
    async with bank:
        yield bank


async def roll(bank: TlsBank, between: Callable[[], Any]) -> None:
    """Restart the brokers one by one, each when all records are on all of them."""
    for name in BROKERS:
        await bank.platform.terminate(name)
        await asyncio.sleep(1)  # it has gone, or is about to
        await all_in_sync(bank)
        await between()


async def all_in_sync(bank: TlsBank) -> None:
    ports = [bank.platform.port_of(f"{name}{way}") for name in BROKERS for way in ("", " tls")]

    async def ask() -> bool:
        with contextlib.suppress(OSError):
            for port in ports:
                await accepts_connections(port)
            return await replicas_are_in_sync(bank)
        return False

    await until("all brokers are in sync", ask, seconds=90, pause=0.3)


async def replicas_are_in_sync(bank: TlsBank) -> bool:
    administrator = aiokafka.admin.AIOKafkaAdminClient(
        bootstrap_servers=bank.settings().kafka, request_timeout_ms=3000
    )
    try:
        await administrator.start()
        (described,) = await administrator.describe_topics([bank.topic])
    except aiokafka.errors.KafkaError:
        return False
    finally:
        await administrator.close()
    return all(len(it["isr"]) == len(BROKERS) for it in described["partitions"])


async def test_a_certificate_is_renewed_while_money_moves(
    bank: TlsBank, record_property: Callable[[str, object], None]
) -> None:
    for mount in bank.mounts:
        mount.renew(seconds=40)
    await bank.workers()
    teller = Teller((await bank.api()).url)
    number = await teller.open()
    moving = asyncio.create_task(teller.deposit_for_ever(number))
    await teller.progress()
    first = max(mount.ends for mount in bank.mounts)
    for mount in bank.mounts:
        mount.renew()
    await asyncio.sleep((first - datetime.now(UTC)).total_seconds() + 1)
    await teller.progress()

    await roll(bank, teller.progress)

    moving.cancel()
    await asyncio.wait({moving})
    await asyncio.sleep(1)
    record_property("longest_seconds_to_settle", round(teller.longest, 2))
    record_property("refusals", len(teller.refusals))
    assert float(await teller.balance(number)) in (teller.settled, teller.settled + 1)
    await bank.check()


async def test_who_is_not_let_in_is_not_ready_and_says_so(bank: TlsBank) -> None:
    for mount in bank.mounts:
        mount.renew()
    workers = await bank.workers()
    api = await bank.api()
    for mount in bank.mounts:
        mount.renew(seconds=-60)

    async def nothing() -> None:
        """Nobody is let in meanwhile."""

    await roll(bank, nothing)
    number = await bank.open_on(0, "1")
    for process in (*workers, api):
        await says(process, "Kafka at 127.0.0.1 does not accept this process's certificate")

    for mount in bank.mounts:
        mount.renew()
    for process in (*workers, api):
        await process.ready(60)
    await bank.check()
    assert await bank.balance(number) == 100


async def says(process: Process, sentence: str) -> None:
    """Wait until the process is not ready and says why."""

    async def ask() -> bool:
        answer = await process.get("/readyz")
        return answer is not None and answer.status_code == 503 and sentence in answer.text

    await until(f"{process.name} says that {sentence}", ask, seconds=40)
