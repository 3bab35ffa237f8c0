"""A bank on two PostgreSQL clusters."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from e2e import kubernetes_bank
from e2e.figures import figure
from e2e.kubernetes_bank import Bank, moving_money
from e2e.kubernetes_cluster import get

pytestmark = pytest.mark.timeout(600)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def bank() -> AsyncIterator[Bank]:
    async with kubernetes_bank.new_bank(shards=2) as made:
        yield made


async def test_it_begins_with_the_next_multiple_and_grows(bank: Bank) -> None:
    """The chart leaves `partitions` out, and its default is no multiple of two."""
    assert get("mfc/microfin", bank.namespace)["spec"]["partitions"] == 3
    assert bank.is_active(4)
    async with moving_money(bank, 4) as mover:
        bank.scale(6)
        took = await bank.until_active(6)
    figure(f"grown from 4 to 6 over two shards in {took:.1f} s")
    mover.report.assert_nobody_noticed()
    await bank.audit()
