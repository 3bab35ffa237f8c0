"""The bank of these tests."""

from collections.abc import AsyncIterator

import pytest_asyncio

from e2e import kubernetes_bank
from e2e.kubernetes_bank import Bank
from microfin_deploy.commands import helm


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def bank() -> AsyncIterator[Bank]:
    """A bank in which money has moved; PostgreSQL with a standby."""
    async with kubernetes_bank.new_bank(postgres={"instances": 2}) as made:
        helm("test", "microfin", "--namespace", made.namespace, "--timeout", "3m")
        yield made
