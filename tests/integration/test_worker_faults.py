"""A worker that dies, freezes or loses an answer at any point of its transaction."""

import asyncio
import signal
from collections.abc import AsyncIterator

import msgspec
import pytest

from integration.bank import MakeBank
from integration.faulty_worker import POINTS
from microfin.ledger import wire
from microfin.postgres.connections import connect_pool
from microfin.process.clock import SystemClock
from microfin.redis.guarded import GuardedRedis
from microfin.redis.replies import Reply, channel_of, read_message, reply_address
from microfin_worker import postgres_store
from microfin_worker.account_memory import AccountMemory
from microfin_worker.batch import PlaceLost, RoutingChanged, commit_batch, decide_ahead, read_batch
from microfin_worker.ports import Fenced, Place, Record
from microfin_worker.tenure import LOOK_UP_BATCHES
from support.waiting import until


@pytest.mark.parametrize("point", POINTS)
async def test_killed_at_every_step(make_bank: MakeBank, point: str) -> None:
    bank = await make_bank(partitions=2)
    every_point = {"FAULT_OCCURRENCE": "3", "MICROFIN_CACHE_ACCOUNTS": "always"}
    dying = await bank.worker(0, fault=point, MICROFIN_BATCH_LIMIT="10", **every_point)
    await (await bank.worker(1)).ready()
    await asyncio.gather(bank.traffic("killed"), dying.ends())
    assert dying.running.returncode == -signal.SIGKILL
    await (await bank.worker(0)).ready()
    await bank.traffic("afterwards", operations=50)
    await bank.check()


@pytest.mark.parametrize("point", ["after commit", "before commit", "after write", "after lock"])
async def test_connection_lost_around_the_commit(make_bank: MakeBank, point: str) -> None:
    """`after commit` is the commit whose answer is lost: it happened, the worker cannot know."""
    bank = await make_bank(partitions=2)
    losing = await bank.worker(
        0, fault=point, FAULT_OCCURRENCE="2", FAULT_ACTION="lose", MICROFIN_BATCH_LIMIT="10"
    )
    await (await bank.worker(1)).ready()
    await bank.traffic("lost")
    await bank.check()
    assert (await losing.status())["epoch"] == 2
    assert "injected" in losing.log.read_text()


@pytest.mark.parametrize("point", ["before lock", "before write", "before commit", "after commit"])
async def test_a_frozen_owner_is_fenced_when_it_wakes(make_bank: MakeBank, point: str) -> None:
    """Two workers with one partition: the older one cannot commit."""
    bank = await make_bank(partitions=1)
    zombie = await bank.worker(0, fault=point, FAULT_ACTION="freeze")
    await zombie.ready()
    first = await bank.open_on(0, balance="100")
    await zombie.freezes()
    heir = await (await bank.worker(0)).ready()
    epoch = (await heir.status())["epoch"]
    await bank.deposit(first, "1", "while the older one sleeps")
    zombie.send_signal(signal.SIGCONT)
    await bank.traffic("both")
    status = await zombie.reaches("fenced")
    assert "another worker" in status["reason"]
    await bank.check()
    assert (await heir.status())["epoch"] == epoch, "the owner was fenced by its predecessor"
    assert await bank.balance(first) == 10_100


async def test_a_fenced_worker_takes_over_when_the_owner_is_gone(make_bank: MakeBank) -> None:
    bank = await make_bank(partitions=1)
    elder = await (await bank.worker(0)).ready()
    heir = await (await bank.worker(0)).ready()
    await bank.traffic("first", operations=25)
    await elder.reaches("fenced")
    await heir.end(signal.SIGKILL)
    await elder.reaches("working", seconds=30)
    await bank.traffic("second", operations=25)
    await bank.check()


async def test_a_graceful_stop_ends_within_a_batch(make_bank: MakeBank) -> None:
    bank = await make_bank(partitions=2)
    workers = await bank.workers()
    traffic = asyncio.create_task(bank.traffic("stopping", operations=300))
    await asyncio.sleep(0.3)
    assert await workers[0].end() == 0
    await traffic
    await (await bank.worker(0)).ready()
    await bank.check()


async def test_two_shards(make_bank: MakeBank) -> None:
    bank = await make_bank(partitions=4, shards=2)
    workers = await bank.workers()
    traffic = asyncio.create_task(bank.traffic("sharded", accounts=20, operations=300))
    await asyncio.sleep(0.2)
    await workers[3].end(signal.SIGKILL)
    await (await bank.worker(3)).ready()
    await traffic
    report = await bank.check()
    assert report.checked.accounts == 20
    per_shard = [await pool.fetchval("SELECT count(*) FROM accounts") for pool in bank.pools]
    assert min(per_shard) > 0


async def test_a_claim_sees_what_its_predecessor_commits_meanwhile(make_bank: MakeBank) -> None:
    """The row's lock makes the claim wait; what it reads must be younger than that wait."""
    bank = await make_bank(partitions=1)
    url = bank.platform.postgres_direct(0, database=bank.name)
    pool = await connect_pool(url, bank.settings())
    try:
        partition = postgres_store.PostgresStore(pool, 0, 1)
        await partition.claim()
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute("UPDATE partitions SET next_offset = 7")
            await connection.execute(
                "INSERT INTO outbox (partition, log_offset, step, operation_id, command)"
                " VALUES (0, 6, 0, gen_random_uuid(), $1)",
                msgspec.json.encode(bank.request("deposit", "0" * 12, "sent on", amount="1")),
            )
            claiming = asyncio.create_task(partition.claim())
            waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            await until("the claim waits", lambda: bank.fetch(waiting))
        claim = await claiming
        assert claim.row.next_offset == 7
        assert [(row.offset, row.step) for row in claim.outbox] == [(6, 0)]
    finally:
        pool.terminate()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ("epoch = epoch + 1", Fenced),
        ("next_offset = next_offset + 1", PlaceLost),
        ("generation = 2", RoutingChanged),
        ("partition_count = 2", RoutingChanged),
    ],
)
@pytest.mark.parametrize("is_ahead", [False, True])
async def test_a_batch_from_another_place_is_not_committed(
    make_bank: MakeBank, change: str, error: type[Exception], is_ahead: bool
) -> None:
    """No entry key and no version would refuse this batch: only what is checked under the lock."""
    bank = await make_bank(partitions=1)
    url = bank.platform.postgres_direct(0, database=bank.name)
    pool = await connect_pool(url, bank.settings())
    try:
        partition = postgres_store.PostgresStore(pool, 0, 1)
        row = (await partition.claim()).row
        place = Place(row.partition, row.epoch, row.next_offset, row.routing)
        await bank.execute(f"UPDATE partitions SET {change}")  # noqa: S608 - ours
        before = await bank.fetch("SELECT * FROM partitions")
        command = bank.opening("too late")
        record = Record(row.next_offset, 1_000, command.account.encode(), wire.encode(command))
        batch, memory = read_batch([record], 500, (), SystemClock()), AccountMemory(10)
        if is_ahead:
            await decide_ahead(batch, place, memory, None, SystemClock())
            assert batch.decisions is not None
        with pytest.raises(error):
            await commit_batch(partition, place, memory, batch, [])
        assert await bank.fetch("SELECT * FROM partitions") == before
        assert not await bank.fetch("SELECT 1 FROM outcomes")
    finally:
        pool.terminate()


async def test_nobody_gets_an_answer_that_is_not_committed(make_bank: MakeBank) -> None:
    bank = await make_bank(partitions=1)
    occurrence = LOOK_UP_BATCHES + 5  # by then it decides ahead
    worker = await bank.worker(
        0, fault="before commit", FAULT_OCCURRENCE=str(occurrence), FAULT_ACTION="lose"
    )
    await worker.ready()
    account = await bank.open_on(0)
    redis = GuardedRedis(bank.settings())
    replies = redis.subscribe(channel_of("listener"))
    hearing = asyncio.create_task(anext(replies))

    async def listening() -> bool:
        await redis.publish(channel_of("listener"), b"[]")
        return hearing.done()

    await until("the channel is subscribed", listening)
    for n in range(occurrence + 2):
        command = bank.request("deposit", account, f"a batch of its own {n}", amount="1")
        reply = reply_address("listener", command.operation)
        await bank.append(msgspec.structs.replace(command, reply=reply))
        reply = await asyncio.wait_for(next_reply(replies), 30)
        assert reply.operation == await bank.operation(command.operation)
    assert (await worker.status())["epoch"] == 2, "no commit was lost"
    await replies.aclose()
    await redis.close()
    await bank.check()


async def next_reply(replies: AsyncIterator[bytes]) -> Reply:
    while True:
        for reply in read_message(channel_of("listener"), await anext(replies), None).replies:
            return reply
