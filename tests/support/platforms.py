"""Real platforms without the bank's own processes. Each starts once a session, for all tests."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from microfin_local import database_home
from microfin_local.configuration import DATA_COMPONENTS, Configuration
from microfin_local.platform import Platform

_PERSONAL = re.compile(r"[\w.+-]+@example\.(com|org)|\$argon2")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def platform(
    real_components: None,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Platform]:
    """PostgreSQL (one shard), PgBouncer, a Redis Cluster and Kafka; no workers and no API.

    Tests share it. A test makes its own database and topic with `create_database` and
    `create_topic`, and leaves every component running.
    """
    state = tmp_path_factory.mktemp("platform")
    configuration = Configuration(state=state, random_ports=True, components=DATA_COMPONENTS)
    try:
        async with Platform(configuration) as platform:
            yield platform
            if endless := await _keys_without_end(platform):
                pytest.fail(f"These keys were written without a time to live: {endless}")
        _expect_nobody_in(configuration.logs)
    finally:
        database_home.forget(state)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def platform_of_two_shards(
    real_components: None, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Platform]:
    """The same components, but two shards of PostgreSQL."""
    configuration = Configuration(
        state=tmp_path_factory.mktemp("two-shards"),
        workers=4,
        shards=2,
        components=DATA_COMPONENTS,
        random_ports=True,
    )
    async with Platform(configuration) as platform:
        yield platform


def _expect_nobody_in(logs: Path) -> None:
    """Expect that PostgreSQL logged no address and no hash of a user of the tests."""
    for log in logs.glob("postgres-*.log"):
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        found = [line for line in lines if _PERSONAL.search(line)]
        if found:
            pytest.fail(f"{log.name} holds personal data: {found[:3]}")


async def _keys_without_end(platform: Platform) -> list[bytes]:
    """Return the keys in Redis that would stay for ever. Nothing may write one, tests included."""
    found = []
    for url in platform.endpoints.redis:
        async with Redis.from_url(url) as node:
            found += [key async for key in node.scan_iter(count=1000) if await node.ttl(key) == -1]
    return found
