"""One ledger with its workers for all tests of the API, and an API on it for each that asks."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from microfin_local.platform import Platform
from support.api_under_test import Api, Ledger, User, running


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def ledger(
    platform: Platform, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Ledger]:
    async with Ledger(platform, tmp_path_factory.mktemp("ledger")) as ledger:
        yield ledger


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def api(ledger: Ledger) -> AsyncIterator[Api]:
    async with running(ledger.settings()) as api:
        yield api


@pytest_asyncio.fixture
async def user(api: Api) -> AsyncIterator[User]:
    user = await api.user()
    yield user
    await user.client.aclose()
