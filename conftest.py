"""Fixtures for all tests: the real parts of the platform, started once a session."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from microfin_local import database_home
from microfin_local.configuration import DATA_PARTS, Configuration
from microfin_local.platform import Platform


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def platform_parts(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Platform]:
    """PostgreSQL (one shard), PgBouncer, a Redis Cluster and Kafka; no workers and no API.

    Tests share it: make a database and a topic of your own with `create_database` and
    `create_topic`, and leave every part running.
    """
    state = tmp_path_factory.mktemp("platform")
    configuration = Configuration(state=state, random_ports=True, parts=DATA_PARTS)
    try:
        async with Platform(configuration) as platform:
            yield platform
    finally:
        database_home.forget(state)
