"""The real parts, once a session, and a bank of its own for each test that asks for one."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from integration.bank import Bank, MakeBank
from microfin_local.configuration import DATA_COMPONENTS, Configuration
from microfin_local.platform import Platform


@pytest.fixture(scope="session")
async def parts(
    real_components: None, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Platform]:
    """PostgreSQL (two shards), PgBouncer, Redis Cluster and Kafka."""
    configuration = Configuration(
        state=tmp_path_factory.mktemp("parts"),
        workers=4,
        shards=2,
        components=DATA_COMPONENTS,
        random_ports=True,
    )
    async with Platform(configuration) as platform:
        yield platform


@pytest.fixture
async def make_bank(parts: Platform, tmp_path: Path) -> AsyncIterator[MakeBank]:
    """Make banks that end with the test: `bank = await make_bank(partitions=2, shards=1)`."""
    async with AsyncExitStack() as stack:

        async def make(partitions: int = 2, shards: int = 1) -> Bank:
            return await stack.enter_async_context(Bank(parts, tmp_path, partitions, shards))

        yield make
