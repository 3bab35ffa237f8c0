"""A worker that dies, freezes or loses an answer at any point of its transaction."""

import asyncio
import signal

import pytest
from bank import MakeBank
from faulty_worker import POINTS


@pytest.mark.parametrize("point", POINTS)
async def test_killed_at_every_step(make_bank: MakeBank, point: str) -> None:
    bank = await make_bank(partitions=2)
    dying = await bank.worker(0, fault=point, FAULT_OCCURRENCE="3", MICROFIN_BATCH_LIMIT="10")
    await (await bank.worker(1)).ready()
    await asyncio.gather(bank.traffic("killed"), dying.ends())
    assert dying.running.returncode == -signal.SIGKILL
    await (await bank.worker(0)).ready()
    await bank.traffic("afterwards", operations=50)
    await bank.check()


@pytest.mark.parametrize("point", ["after commit", "before commit", "after write", "after lock"])
async def test_connection_lost_around_the_commit(make_bank: MakeBank, point: str) -> None:
    """`after commit` is the commit whose answer is lost: it took place, the worker cannot know."""
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
