"""What makes answers slower is said, and keeps no request away."""

from pathlib import Path

import httpx
from redis.asyncio import Redis

from microfin_local.configuration import Configuration
from microfin_local.platform import Platform
from support.api_under_test import Ledger, running
from support.waiting import until


async def test_a_redis_cluster_that_is_down_is_said_from_the_start(
    ledger: Ledger, tmp_path: Path
) -> None:
    alone = Configuration(state=tmp_path, components=frozenset({"redis"}), random_ports=True)
    async with Platform(alone) as platform:
        for url in platform.endpoints.redis:
            async with Redis.from_url(url) as node:
                await node.execute_command("CONFIG", "SET", "cluster-require-full-coverage", "yes")
        async with Redis.from_url(platform.endpoints.redis[0]) as node:
            await node.execute_command("CLUSTER", "DELSLOTS", 7)
        settings = ledger.settings(redis=" ".join(platform.endpoints.redis))
        async with running(settings) as api, api.client() as client:

            async def is_degraded() -> bool:
                return _is_degraded(await client.get("/readyz"))

            await until("the API says that it is degraded", is_degraded, 60)
            user = await api.user()
            assert await user.balance(await user.account(balance="5")) == "5.00"
            await user.client.aclose()


async def test_nothing_is_degraded_where_all_is_well(ledger: Ledger) -> None:
    async with running(ledger.settings()) as api, api.client() as client:
        assert (await client.get("/readyz")).json() == {"status": "ready"}


def _is_degraded(ready: httpx.Response) -> bool:
    return ready.status_code == 200 and "its cluster is down" in str(ready.json().get("degraded"))
