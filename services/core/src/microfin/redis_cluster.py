"""Redis Cluster behind a guard: every call has a deadline, and a failing node is left alone.

The cache never decides, so a caller's answer to `RedisUnavailable` is always the same: go on
without. After a failure the node that owns the key is not asked again for a second, so that a hung
node costs one deadline a second and not one a request.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import structlog
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException, RedisError

from microfin.settings import CommonSettings

logger = structlog.get_logger(__name__)

_PAUSE: Final = 1.0  # seconds for which a failing node is not asked
_HEARTBEAT: Final = 1.0  # seconds between two heartbeats on a subscribed channel
_SILENCE: Final = 4.0  # seconds without one after which the subscription is made anew
_ANY_NODE: Final = ""

# Two families without a common base: the cluster's own errors are no RedisErrors.
_FAILURES: Final = (RedisError, RedisClusterException, OSError, TimeoutError, LookupError)


class RedisUnavailable(Exception):
    """Redis did not answer in time, or has just failed to; go on without it."""


class GuardedRedis:
    """The Redis Cluster of the settings. Connects when it is first used, and again after losses."""

    def __init__(self, settings: CommonSettings) -> None:
        self._settings = settings
        self._timeout = settings.redis_timeout
        self._cluster: RedisCluster | None = None
        self._paused: dict[str, float] = {}

    async def start(self) -> None:
        """Connect now, so that the first request need not; a dead Redis is no error."""
        with contextlib.suppress(RedisUnavailable):
            await self._guard("start", lambda cluster: cluster.ping())

    async def close(self) -> None:
        """Close all connections."""
        cluster, self._cluster = self._cluster, None
        if cluster is not None:
            with contextlib.suppress(*_FAILURES):
                await cluster.aclose()

    async def get(self, key: str) -> bytes | None:
        """Return the value of `key`, or None."""
        value: bytes | None = await self._guard(key, lambda cluster: cluster.get(key))
        return value

    async def set(self, key: str, value: bytes, *, seconds: int) -> None:
        """Set `key` for `seconds`."""
        await self._guard(key, lambda cluster: cluster.set(key, value, ex=seconds))

    async def remember_first(self, key: str, value: bytes, *, seconds: int) -> bytes:
        """Set `key` for `seconds` unless it is set, and return what it is set to now."""
        earlier: bytes | None = await self._guard(
            key, lambda cluster: cluster.set(key, value, ex=seconds, nx=True, get=True)
        )
        return value if earlier is None else earlier

    async def delete(self, key: str) -> None:
        """Delete `key`."""
        await self._guard(key, lambda cluster: cluster.delete(key))

    async def increment(self, key: str, *, seconds: int) -> int:
        """Add one to the counter `key`, which lives `seconds` from its first increment."""

        async def increment(cluster: RedisCluster) -> int:
            count = int(await cluster.incr(key))
            if count == 1:
                await cluster.expire(key, seconds)
            return count

        count: int = await self._guard(key, increment)
        return count

    async def publish(self, channel: str, payload: bytes) -> None:
        """Publish on a sharded channel (SPUBLISH); nobody need be listening."""
        await self._guard(
            channel, lambda cluster: cluster.execute_command("SPUBLISH", channel, payload)
        )

    async def evaluate(self, script: str, calls: Iterable[tuple[str, Sequence[bytes]]]) -> None:
        """Run `script` once for each (key, arguments), in one pipeline. Best effort as a whole."""

        async def run(cluster: RedisCluster) -> None:
            pipeline = cluster.pipeline()
            for key, arguments in calls:
                pipeline.execute_command("EVAL", script, 1, key, *arguments)
            await pipeline.execute(raise_on_error=False)

        await self._guard(_ANY_NODE, run)

    async def subscribe(self, channel: str) -> AsyncIterator[bytes]:
        """Yield the messages of a sharded channel, for ever; subscribe again after any loss.

        What is published while the subscription is away is lost. A heartbeat of our own on the
        channel tells a quiet channel from a dead one: an empty message, which is not yielded.
        """
        heart = asyncio.create_task(self._beat(channel))
        try:
            while True:
                try:
                    async for payload in self._listen(channel):
                        yield payload
                except (*_FAILURES, RedisUnavailable) as error:
                    logger.warning("subscribing again", channel=channel, error=repr(error))
                await asyncio.sleep(0.2)
        finally:
            heart.cancel()

    async def _beat(self, channel: str) -> None:
        while True:
            with contextlib.suppress(RedisUnavailable):
                await self.publish(channel, b"")
            await asyncio.sleep(_HEARTBEAT)

    async def _listen(self, channel: str) -> AsyncIterator[bytes]:
        cluster = await self._connected()
        subscription = cluster.pubsub()
        try:
            await asyncio.wait_for(subscription.ssubscribe(channel), self._timeout * 4)
            heard = time.monotonic()
            while time.monotonic() - heard < _SILENCE:
                message = await subscription.get_sharded_message(timeout=1.0)
                if message is not None:
                    heard = time.monotonic()
                    if message["type"] == "smessage" and message["data"]:
                        yield message["data"]
            raise RedisUnavailable("no heartbeat on the channel")
        finally:
            with contextlib.suppress(*_FAILURES):
                await asyncio.wait_for(subscription.aclose(), self._timeout)

    async def _connected(self) -> RedisCluster:
        if self._cluster is None:
            self._cluster = _client(self._settings)
        if self._cluster.get_primaries():
            return self._cluster
        await asyncio.wait_for(self._cluster.initialize(), self._timeout * 4)
        return self._cluster

    async def _guard(self, key: str, call: Callable[[RedisCluster], Awaitable[Any]]) -> Any:
        node = self._node_of(key)
        if self._paused.get(node, 0.0) > time.monotonic():
            raise RedisUnavailable("Redis has just failed; it is left alone for a moment")
        try:
            cluster = self._cluster
            if cluster is None or not cluster.get_primaries():
                cluster = await self._connected()
            async with asyncio.timeout(self._timeout):
                return await call(cluster)
        except _FAILURES as error:
            self._paused[node] = time.monotonic() + _PAUSE
            logger.warning("Redis is unavailable", node=node, error=repr(error))
            raise RedisUnavailable(repr(error)) from error

    def _node_of(self, key: str) -> str:
        if self._cluster is None or key == _ANY_NODE:
            return _ANY_NODE
        try:
            node = self._cluster.get_node_from_key(key)
        except _FAILURES:
            return _ANY_NODE
        return node.name if node else _ANY_NODE


def _client(settings: CommonSettings) -> RedisCluster:
    urls = [urlsplit(url) for url in settings.redis_urls]
    return RedisCluster(
        startup_nodes=[ClusterNode(url.hostname or "127.0.0.1", url.port or 6379) for url in urls],
        username=urls[0].username,
        password=urls[0].password,
        ssl=urls[0].scheme == "rediss",
        require_full_coverage=False,
        retry=Retry(NoBackoff(), 1),
        socket_timeout=settings.redis_timeout * 8,
        socket_connect_timeout=settings.redis_timeout,
    )
