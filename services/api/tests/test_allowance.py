"""Allowances: in Redis for all processes, and in one process."""

import time
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
import pytest_asyncio

from microfin.process.settings import CommonSettings
from microfin.redis.guarded import GuardedRedis
from microfin_api.people.allowance import (
    LAPSE_MILLISECONDS,
    Allowances,
    OwnAllowances,
    Result,
)
from microfin_local.platform import Platform

ACQUIRED, BUSY, FULL = Result.ACQUIRED, Result.BUSY, Result.FULL


class ByRedis:
    """Allowances of all processes, at a time of our choosing."""

    def __init__(self, redis: GuardedRedis, patch: pytest.MonkeyPatch) -> None:
        self._allowances = Allowances(redis)
        self._patch = patch

    async def acquire(self, key: str, limit: int, now: int) -> tuple[Result, int]:
        self._patch.setattr(time, "time_ns", lambda: now * 1_000_000)
        acquisition = await self._allowances.acquire(key, limit, seconds=60)
        return acquisition.result, acquisition.milliseconds

    async def release(self, key: str, now: int, *, counts: bool) -> None:
        self._patch.setattr(time, "time_ns", lambda: now * 1_000_000)
        await self._allowances.release(key, seconds=60, counts=counts)


class ByProcess:
    """Allowances of one process, at a time of our choosing."""

    def __init__(self) -> None:
        self._allowances = OwnAllowances(10)

    async def acquire(self, key: str, limit: int, now: int) -> tuple[Result, int]:
        acquisition = self._allowances.acquire(key, limit, seconds=60, now=now)
        return acquisition.result, acquisition.milliseconds

    async def release(self, key: str, now: int, *, counts: bool) -> None:
        self._allowances.release(key, seconds=60, counts=counts, now=now)


@pytest_asyncio.fixture
async def redis(platform: Platform) -> AsyncIterator[GuardedRedis]:
    redis = GuardedRedis(CommonSettings(redis=platform.endpoints.redis[0]))
    yield redis
    await redis.close()


@pytest.fixture(params=["redis", "process"])
def allowances(
    request: pytest.FixtureRequest, redis: GuardedRedis, monkeypatch: pytest.MonkeyPatch
) -> ByRedis | ByProcess:
    return ByRedis(redis, monkeypatch) if request.param == "redis" else ByProcess()


@pytest.fixture
def key() -> str:
    return f"rate:{uuid4().hex}"


NOW = 1_800_000_000_000


async def test_what_counts_is_full_until_the_window_ends(
    allowances: ByRedis | ByProcess, key: str
) -> None:
    for _ in range(2):
        assert await allowances.acquire(key, 2, NOW) == (ACQUIRED, 0)
        await allowances.release(key, NOW + 1000, counts=True)
    assert await allowances.acquire(key, 2, NOW + 2000) == (FULL, 58_000)
    assert await allowances.acquire(key, 2, NOW + 59_999) == (FULL, 1)
    assert await allowances.acquire(key, 2, NOW + 60_000) == (ACQUIRED, 0)


async def test_an_acquisition_keeps_the_allowance_busy_until_its_release(
    allowances: ByRedis | ByProcess, key: str
) -> None:
    assert await allowances.acquire(key, 1, NOW) == (ACQUIRED, 0)
    assert await allowances.acquire(key, 1, NOW + 1000) == (BUSY, LAPSE_MILLISECONDS - 1000)
    await allowances.release(key, NOW + 1000, counts=False)
    assert await allowances.acquire(key, 1, NOW + 2000) == (ACQUIRED, 0)


async def test_an_acquisition_without_release_lapses(
    allowances: ByRedis | ByProcess, key: str
) -> None:
    """Its process died, or Redis' answer came too late."""
    assert await allowances.acquire(key, 2, NOW) == (ACQUIRED, 0)
    assert await allowances.acquire(key, 2, NOW) == (ACQUIRED, 0)
    assert (await allowances.acquire(key, 2, NOW))[0] == BUSY
    assert await allowances.acquire(key, 2, NOW + LAPSE_MILLISECONDS) == (ACQUIRED, 0)


async def test_what_counts_late_counts(allowances: ByRedis | ByProcess, key: str) -> None:
    assert await allowances.acquire(key, 1, NOW) == (ACQUIRED, 0)
    await allowances.release(key, NOW + 61_000, counts=True)
    assert await allowances.acquire(key, 1, NOW + 62_000) == (FULL, 59_000)


@pytest.mark.parametrize("held", [b"7", b"x", b"7 0 0 9999999999999999", b"7 0 0"])
async def test_a_counter_without_an_end_counts_as_none(
    redis: GuardedRedis, key: str, held: bytes
) -> None:
    await redis.run("return redis.call('SET', KEYS[1], ARGV[1])", key, held)
    ttl = "return redis.call('PTTL', KEYS[1])"
    assert await redis.run(ttl, key) == -1
    assert (await Allowances(redis).acquire(key, 5, seconds=60)).result is ACQUIRED
    assert 0 < await redis.run(ttl, key) <= 60_000


async def test_every_counter_has_an_end(redis: GuardedRedis, key: str) -> None:
    allowances = Allowances(redis)
    for counts in (True, False, True):
        await allowances.acquire(key, 5, seconds=60)
        assert 0 < await redis.run("return redis.call('PTTL', KEYS[1])", key) <= 60_000
        await allowances.release(key, seconds=60, counts=counts)
        assert 0 < await redis.run("return redis.call('PTTL', KEYS[1])", key) <= 60_000


def test_a_process_remembers_only_so_many() -> None:
    allowances = OwnAllowances(10)
    for number in range(100):
        allowances.acquire(f"{number}", 5, seconds=60)
    assert len(allowances) == 10
