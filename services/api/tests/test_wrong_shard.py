"""An API whose MICROFIN_DATABASES are not the shards in their order: it writes nothing there."""

from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio

from microfin_local.platform import Platform
from support.api_under_test import PASSWORD, Api, Ledger


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def sharded(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    folder: Path = tmp_path_factory.mktemp("sharded")
    async with Ledger(platform, folder, shards=2) as ledger:
        await ledger.stop_workers()
        return ledger


@pytest_asyncio.fixture(loop_scope="session", params=[[1, 0], [0], [1]])
async def misled(sharded: Ledger, request: pytest.FixtureRequest) -> AsyncIterator[Api]:
    urls = sharded.environment("api")["MICROFIN_DATABASES"].split()
    api = Api(sharded.settings(databases=" ".join(urls[place] for place in request.param)))
    await api.services.start()
    yield api
    await api.services.stop()


async def test_nobody_is_signed_up_and_no_lease_is_taken(sharded: Ledger, misled: Api) -> None:
    async with misled.client() as client:
        body = {"name": "Eve", "email": "eve@example.com", "password": PASSWORD}
        answer = await client.post("/api/signup", json=body)
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        ready = await client.get("/readyz")
        assert ready.status_code == 503
        assert any("is shard" in fault for fault in ready.json()["missing"]), ready.text
    for database in sharded.databases:
        connection = await asyncpg.connect(
            sharded.platform.postgres_direct(database=database), ssl=False
        )
        for table in ("users", "sessions", "leases"):
            query = f"SELECT count(*) FROM {table}"  # noqa: S608 - ours
            assert await connection.fetchval(query) == 0, (database, table)
        await connection.close()
