"""A bank of its own for each test that requests `make_bank`."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from integration.bank import Bank, MakeBank
from microfin_local.platform import Platform


@pytest.fixture
async def make_bank(platform_of_two_shards: Platform, tmp_path: Path) -> AsyncIterator[MakeBank]:
    """Make banks that end with the test: `bank = await make_bank(partitions=2, shards=1)`."""
    async with AsyncExitStack() as stack:

        async def make(partitions: int = 2, shards: int = 1) -> Bank:
            return await stack.enter_async_context(
                Bank(platform_of_two_shards, tmp_path, partitions, shards)
            )

        yield make
