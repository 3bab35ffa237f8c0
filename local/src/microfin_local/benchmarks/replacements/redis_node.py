"""`microfin.redis.node` beside redis-py: reading keys of a real Redis Cluster.

Some commands are under way at once, as when an API process serves that many requests.
"""

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from redis.asyncio.cluster import ClusterNode, RedisCluster

from microfin.redis.node import Address, Node
from microfin_local.benchmarks.replacements.side_by_side import Measure, compare
from microfin_local.configuration import Configuration
from microfin_local.platform import Platform

AT_ONCE: Final = (1, 8, 32)
_COMMANDS: Final = 20_000
_KEYS: Final = 100
_VALUE: Final = b"v" * 200

Get = Callable[[str], Awaitable[bytes | None]]


async def measure_redis_node(runs: int, commands: int = _COMMANDS) -> dict[str, Any]:
    """Return the microseconds of this process's CPU for one GET, by how many are under way."""
    with tempfile.TemporaryDirectory(prefix="microfin-bench-") as folder:
        configuration = Configuration(
            state=Path(folder), components=frozenset({"redis"}), random_ports=True
        )
        async with Platform(configuration) as platform:
            return await _measure(platform.endpoints.redis, runs, commands)


async def _measure(urls: list[str], runs: int, commands: int) -> dict[str, Any]:
    cluster = _cluster(urls)
    await cluster.initialize()
    nodes = {node.name: _node(node, urls) for node in cluster.get_primaries()}
    keys = [f"session:{number}" for number in range(_KEYS)]
    for key in keys:
        await cluster.execute_command("SET", key, _VALUE, "EX", 3600)

    async def by_node(key: str) -> bytes | None:
        known = cluster.get_node_from_key(key)
        assert known is not None  # noqa: S101 - the cluster has just been asked
        [value] = await nodes[known.name].ask([("GET", key)])
        return bytes(value)

    async def by_library(key: str) -> bytes | None:
        return bytes(await cluster.execute_command("GET", key))

    try:
        compared = {}
        for count in AT_ONCE:
            compared[str(count)] = await compare(
                _reading(by_node, keys, count, commands),
                _reading(by_library, keys, count, commands),
                runs=runs,
            )
        return {"get_by_commands_at_once": compared}
    finally:
        for node in nodes.values():
            node.close()
        await cluster.aclose()


def _cluster(urls: list[str]) -> RedisCluster:
    places = [urlsplit(url) for url in urls]
    return RedisCluster(
        startup_nodes=[ClusterNode(it.hostname or "127.0.0.1", it.port or 6379) for it in places],
        username=places[0].username,
        password=places[0].password,
    )


def _node(known: ClusterNode, urls: list[str]) -> Node:
    url = urlsplit(urls[0])
    address = Address(known.host, int(known.port), url.username, url.password, tls=None)
    return Node(address, timeout=5.0)


def _reading(get: Get, keys: list[str], count: int, commands: int) -> Measure:
    async def client(number: int) -> None:
        for turn in range(commands // count):
            if await get(keys[(number + turn) % len(keys)]) != _VALUE:
                raise RuntimeError("Redis returned another value")

    async def measure() -> float:
        began = time.process_time()
        await asyncio.gather(*map(client, range(count)))
        return 1_000_000 * (time.process_time() - began) / commands

    return measure
