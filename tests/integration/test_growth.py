"""Growing from N partitions to more while money moves."""

import asyncio
import json
import signal
import sys
from uuid import uuid4

import aiokafka
import httpx
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions

from integration.bank import Bank, MakeBank
from integration.growing_clients import GrowingClients
from integration.growth import grow, grown, start_growing, widen
from microfin.ledger.routing import Routing, partition_of
from microfin_tools.growth import PostgresRouting
from microfin_tools.growth.postgres_routing import AnotherGrowth


@pytest.mark.parametrize("shards", [1, 2])
async def test_four_six_twelve_under_load(make_bank: MakeBank, shards: int) -> None:
    """Nobody is refused, what was acknowledged first takes effect first, pauses stay short."""
    bank = await make_bank(partitions=4, shards=shards)
    await bank.workers()
    apis = [await bank.api(), await bank.api()]
    async with GrowingClients([api.url for api in apis]) as clients:
        await clients.progress()
        for partitions in (6, 12):
            await widen(bank, partitions)
            await grown(bank, partitions)
            await clients.progress()
    await clients.check(bank)
    assert not clients.refused, clients.refused
    await bank.check()


async def test_back_to_back(make_bank: MakeBank) -> None:
    bank = await make_bank(partitions=2)
    await bank.workers()
    api = await bank.api()
    async with GrowingClients([api.url]) as clients:
        await clients.progress()
        await widen(bank, 8)
        for partitions in (3, 4, 6, 8):
            await grown(bank, partitions)
        await clients.progress()
    await clients.check(bank)
    assert not clients.refused, clients.refused


@pytest.mark.parametrize("frozen", ["api", "worker"])
async def test_a_process_frozen_across_the_growth(make_bank: MakeBank, frozen: str) -> None:
    """It wakes up with an old routing, or with commands that it sent under one."""
    bank = await make_bank(partitions=2)
    workers = await bank.workers()
    apis = [await bank.api(), await bank.api()]
    sleeper = {"api": apis[1], "worker": workers[0]}[frozen]
    async with GrowingClients([api.url for api in apis], patient=True) as clients:
        await clients.progress()
        await widen(bank, 4)
        sleeper.send_signal(signal.SIGSTOP)
        growing = asyncio.create_task(grow(bank, 4))
        await asyncio.sleep(4)
        sleeper.send_signal(signal.SIGCONT)
        code, output = await growing
        assert code == 0, output
        bank.partitions = 4
        await clients.progress()
    await clients.check(bank)
    await bank.check()


POINTS = [
    "after prepare", "before activate", "after activate", "before withdraw", "before prepare",
]  # fmt: skip


@pytest.mark.parametrize("point", POINTS)
async def test_the_activator_killed_between_its_steps(make_bank: MakeBank, point: str) -> None:
    """With two shards: killed after the first shard's step, before the second's."""
    bank = await make_bank(partitions=2, shards=2)
    await bank.workers()
    api = await bank.api()
    async with GrowingClients([api.url], patient=True) as clients:
        await clients.progress()
        await widen(bank, 4)
        program = [sys.executable, "killed_growth.py"]
        dying = await start_growing(bank, 4, program, FAULT_POINT=point)
        output, _ = await asyncio.wait_for(dying.communicate(), 60)
        assert dying.returncode == -signal.SIGKILL, output
        await clients.progress()
        await grown(bank, 4)
        await clients.progress()
    await clients.check(bank)
    rows = await bank.fetch("SELECT generation, partition_count, intent_token FROM routing")
    assert {tuple(row) for row in rows} == {(2, 4, None)}
    await bank.check()


@pytest.mark.parametrize(
    ("partitions", "shards", "topic", "sentence"),
    [
        (1, 1, 2, "partitions never shrink"),
        (3, 2, 4, "not a multiple of the 2 shards"),
        (4, 1, 2, "The topic has 2 partitions"),
        (4, 1, 4, "No worker has partitions 2, 3"),
    ],
)
async def test_what_cannot_be_is_refused_with_a_sentence(
    make_bank: MakeBank, partitions: int, shards: int, topic: int, sentence: str
) -> None:
    bank = await make_bank(partitions=2, shards=shards)
    await bank.workers()
    if topic > 2:
        client = AIOKafkaAdminClient(bootstrap_servers=bank.settings().kafka)
        await client.start()
        await client.create_partitions({bank.topic: NewPartitions(topic)})
        await client.close()
    code, output = await grow(bank, partitions)
    assert code == 2
    assert sentence in output
    rows = await bank.fetch("SELECT generation, intent_token FROM routing")
    assert {tuple(row) for row in rows} == {(1, None)}


async def test_growing_to_what_is_there_is_no_error(make_bank: MakeBank) -> None:
    bank = await make_bank(partitions=2)
    await bank.workers()
    assert (await grow(bank, 2))[0] == 0


async def test_it_waits_while_the_workers_are_behind(make_bank: MakeBank) -> None:
    bank = await make_bank(partitions=2)
    workers = await bank.workers()
    await widen(bank, 4)
    workers[0].send_signal(signal.SIGSTOP)
    account = await bank.open_on(0)
    process = await start_growing(bank, 4)
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), 30)
    assert b"more than a second behind" in line
    assert not await bank.fetch("SELECT 1 FROM routing WHERE intent_token IS NOT NULL")
    workers[0].send_signal(signal.SIGCONT)
    await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0
    bank.partitions = 4
    await bank.deposit(account, "1", "afterwards")
    await bank.check()


async def ends_of(bank: Bank) -> dict[int, int]:
    consumer = aiokafka.AIOKafkaConsumer(bootstrap_servers=bank.settings().kafka)
    await consumer.start()
    try:
        places = [aiokafka.TopicPartition(bank.topic, number) for number in range(4)]
        return {place.partition: end for place, end in (await consumer.end_offsets(places)).items()}
    finally:
        await consumer.stop()


async def open_that_moves(session: httpx.AsyncClient) -> str:
    """Open accounts until one moves when two partitions become four; return its number."""
    person = {"name": "M", "email": f"{uuid4().hex}@example.com", "password": uuid4().hex}
    (await session.post("/api/signup", json=person)).raise_for_status()
    while True:
        answer = await session.post("/api/accounts", json={"currency": "EUR"})
        number: str = answer.raise_for_status().json()["accountNumber"]
        if partition_of(number, 2) != partition_of(number, 4):
            return number


async def test_the_cut_is_not_where_a_stale_broker_says_that_the_log_ends(
    make_bank: MakeBank,
) -> None:
    """A deposit is accepted, and a broker that lacks it is asked where the partition ends."""
    bank = await make_bank(partitions=2)
    workers = await bank.workers()
    await widen(bank, 4)
    api = await bank.api()
    async with httpx.AsyncClient(base_url=api.url, timeout=30) as session:
        number = await open_that_moves(session)
        stale = json.dumps(await ends_of(bank))
        sleeper = workers[partition_of(number, 2)]
        sleeper.send_signal(signal.SIGSTOP)
        body = {"accountNumber": number, "amount": "5"}
        first = await session.post("/api/deposit", json=body, headers={"Prefer": "respond-async"})
        assert first.status_code == 202, first.text

        program = [sys.executable, "stale_growth.py"]
        growing = await start_growing(bank, 4, program, STALE_ENDS=stale)
        assert growing.stdout is not None
        async with asyncio.timeout(30):
            async for line in growing.stdout:
                if b"did not pass their cuts" in line:
                    break
        second = asyncio.create_task(session.post("/api/withdraw", json=body))
        await asyncio.sleep(0.5)  # by the routing of now
        sleeper.send_signal(signal.SIGCONT)
        answer = await second
        assert answer.status_code in (200, 202), answer.text
        output, _ = await asyncio.wait_for(growing.communicate(), 60)
        assert growing.returncode == 0, output
    bank.partitions = 4
    told = [first.json()["operationId"], answer.json()["operationId"]]
    assert [(await bank.final(it)).status for it in told] == ["settled", "settled"]
    rows = await bank.fetch(
        "SELECT operation_id FROM entries WHERE account = $1 ORDER BY seq", number
    )
    assert [row["operation_id"].hex for row in rows] == told
    await bank.check()


async def test_each_growth_leaves_one_rejected_operation_for_each_partition(
    make_bank: MakeBank,
) -> None:
    """However often it was tried, and without an effect (ADR 24)."""
    bank = await make_bank(partitions=2)
    workers = await bank.workers()
    await widen(bank, 4)
    stale = json.dumps(await ends_of(bank))
    workers[0].send_signal(signal.SIGSTOP)
    account = await bank.open_on(0)
    program = [sys.executable, "stale_growth.py"]
    growing = await start_growing(bank, 4, program, STALE_ENDS=stale)
    assert growing.stdout is not None
    tries = 0
    async with asyncio.timeout(60):
        async for line in growing.stdout:
            tries += b"did not pass their cuts" in line
            if tries == 2:
                workers[0].send_signal(signal.SIGCONT)
    assert await growing.wait() == 0
    bank.partitions = 4
    rows = await bank.fetch(
        "SELECT partition, kind, status, reason, left(account, 1) FROM outcomes"
        " WHERE account <> $1 ORDER BY partition",
        account,
    )
    marks = [(it, "set_state", "rejected", "expired", "0") for it in (0, 1)]
    assert [tuple(row) for row in rows] == marks
    assert len(await bank.fetch("SELECT 1 FROM accounts")) == 1
    assert not await bank.fetch("SELECT 1 FROM quarantine")
    await bank.check()


async def test_a_generation_is_not_prepared_over_itself(make_bank: MakeBank) -> None:
    """Another growth may have taken it since this one looked."""
    bank = await make_bank(partitions=2)
    routing = PostgresRouting(bank.pools[0], 0)
    with pytest.raises(AnotherGrowth):
        await routing.prepare(Routing(1, 2), Routing(1, 4), uuid4())
    assert not await bank.fetch("SELECT 1 FROM routing WHERE intent_token IS NOT NULL")
