"""What the chart's Redis users may do, asked by microfin's own client and past it."""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise

import pytest
import pytest_asyncio

from microfin.process.settings import CommonSettings
from microfin.redis.account_cache import AccountCache, CachedAccount, account_seal
from microfin.redis.ended_channel import CHANNEL
from microfin.redis.guarded import GuardedRedis
from microfin_api.people.allowance import Allowances, Result
from redis_keeper.kept_cluster import KeptCluster, running_cluster

ADDRESSES = ["127.77.20.1", "127.77.20.2", "127.77.20.3"]


@pytest.fixture(scope="module")
def cluster(
    real_components: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[KeptCluster]:
    with running_cluster(tmp_path_factory.mktemp("redis") / "cluster", ADDRESSES) as made:
        yield made


def client(user: str) -> GuardedRedis:
    url = f"redis://microfin_{user}:{user}@{ADDRESSES[1]}:6379"
    return GuardedRedis(CommonSettings(redis=url, redis_timeout=2))


@pytest_asyncio.fixture
async def api(cluster: KeptCluster) -> AsyncIterator[GuardedRedis]:
    made = client("api")
    await made.start()
    yield made
    await made.close()


@pytest_asyncio.fixture
async def worker(cluster: KeptCluster) -> AsyncIterator[GuardedRedis]:
    made = client("worker")
    await made.start()
    yield made
    await made.close()


def refusals(cluster: KeptCluster) -> list[str]:
    """Return what any node refused, and forget it. Debian 12's Redis 7.0 has no CLIENT SETINFO."""
    found = []
    for node in range(len(ADDRESSES)):
        lines = cluster.ask(node, "ACL", "LOG").splitlines()
        pairs = pairwise(lines)
        found += [text for name, text in pairs if name == "object" and "setinfo" not in text]
        cluster.ask(node, "ACL", "LOG", "RESET")
    return found


async def test_the_api_can_do_what_it_needs(cluster: KeptCluster, api: GuardedRedis) -> None:
    await api.set("session:x", b"1", seconds=60)
    assert await api.get("session:x") == b"1"
    await api.delete("session:x")
    assert await api.remember_first("key:u:k", b"deposit", seconds=60) == b"deposit"
    assert await api.remember_first("key:u:k", b"withdraw", seconds=60) == b"deposit"
    allowances = Allowances(api)
    assert (await allowances.acquire("rate:in:email:x", 1, seconds=60)).result is Result.ACQUIRED
    assert (await allowances.acquire("rate:in:email:x", 1, seconds=60)).result is Result.BUSY
    await allowances.release("rate:in:email:x", seconds=60, counts=False)
    assert refusals(cluster) == []


async def cached(worker: GuardedRedis, api: GuardedRedis) -> None:
    """Put accounts of all three masters into the cache, and read them as the release before."""
    cache = AccountCache(worker, account_seal("a secret of API and workers"))
    numbers = [str(number) for number in range(20)]
    await cache.put(CachedAccount(it, "o", "EUR", 5, "open", 1, 1) for it in numbers)
    for number in numbers:
        held = await api.get(f"account:{number}")
        assert held is not None
        assert b'"balance":5' in held


async def test_a_worker_caches_and_answers(
    cluster: KeptCluster, api: GuardedRedis, worker: GuardedRedis
) -> None:
    await cached(worker, api)

    async def hear() -> bytes:
        async for payload in api.subscribe("replies:one"):
            return payload
        raise AssertionError("the subscription ended")

    hearing = asyncio.create_task(hear())
    async with asyncio.timeout(10):
        while not hearing.done():
            await worker.publish("replies:one", b"answer")
            await asyncio.wait({hearing}, timeout=0.1)
    assert await hearing == b"answer"
    assert refusals(cluster) == []


async def test_the_api_hears_which_sessions_end(cluster: KeptCluster, api: GuardedRedis) -> None:
    async with api.listen(CHANNEL) as listening, asyncio.timeout(10):
        await listening.publish(b"beat")
        assert await listening.next() == b"beat"
    assert refusals(cluster) == []


REFUSED = {
    "worker": [
        "GET session:x",
        "SET session:x 1",
        "GET key:u:k",
        "INCR rate:x",
        "DEL account:1",
        "EXPIRE account:1 1",
        "SPUBLISH other:x 1",
        "SPUBLISH sessions-ended 1",
        "SSUBSCRIBE sessions-ended",
        "SSUBSCRIBE replies:one",
        "PUBLISH replies:one 1",
        "FLUSHALL",
        "KEYS *",
        "CONFIG GET *",
        "CLUSTER RESET",
        "ACL LIST",
        "INFO",
    ],
    "api": [
        "GET other:x",
        "SPUBLISH other:x 1",
        "SSUBSCRIBE other:x",
        "FLUSHDB",
        "SCAN 0",
        "CONFIG SET maxmemory 0",
        "CLUSTER FORGET x",
        "SHUTDOWN",
        "MONITOR",
    ],
    "metrics": [
        "GET account:1",
        "SET account:1 1",
        "KEYS *",
        "CONFIG GET *",
        "CLUSTER NODES",
        "CLIENT LIST",
        "SLOWLOG GET",
        "ACL LIST",
        "FLUSHALL",
    ],
}


@pytest.mark.parametrize("user", list(REFUSED))
def test_everything_else_is_refused(cluster: KeptCluster, user: str) -> None:
    for command in REFUSED[user]:
        answer = as_user(f"microfin_{user}", user, *command.split())
        assert "NOPERM" in answer, f"{command}: {answer}"


def test_a_script_reaches_no_other_key(cluster: KeptCluster) -> None:
    script = "return redis.call('GET', KEYS[1])"
    assert "NOPERM" in as_user("microfin_worker", "worker", "EVAL", script, "1", "session:x")


def test_nobody_without_a_password(cluster: KeptCluster) -> None:
    assert "NOAUTH" in as_user("", "", "PING")
    assert "WRONGPASS" in as_user("microfin_worker", "api", "PING")
    assert "WRONGPASS" in as_user("default", "", "PING")


def as_user(user: str, password: str, *command: str) -> str:
    login = ["--user", user, "--pass", password, "--no-auth-warning"] if user else []
    done = subprocess.run(
        ["redis-cli", "-c", "-h", ADDRESSES[0], *login, *command],
        env={name: text for name, text in os.environ.items() if name != "REDISCLI_AUTH"},
        capture_output=True,
        text=True,
        check=False,
        timeout=5,
    )
    return done.stdout + done.stderr
