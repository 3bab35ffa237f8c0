"""Redis Cluster behind a guard: every call has a deadline, and a failing node is left alone.

The cache never decides, so every caller does the same after `RedisUnavailable`: go on without
Redis. After a failure nobody asks the node that owns the key for a second, so that a hung node
costs one deadline a second and not one in each request.

redis-py knows which node owns which key, and follows a key that moves. A command goes to the owner
directly (`microfin.redis.node`), and only through redis-py where the owner refuses it. After any
failure the nodes are looked up anew from the configured names, which may lead to other nodes by
then.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from functools import cache, partial
from hashlib import sha1
from typing import Any, Final
from urllib.parse import urlsplit

import structlog
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import RedisClusterException, RedisError

from microfin.process.settings import CommonSettings
from microfin.process.silence import Silence
from microfin.process.ticks import tick
from microfin.redis.node import Address, Command, ErrorReply, Node, Subscription
from microfin.redis.state import SERVING, judge
from microfin.redis.tls import redis_fault, tls_context, use_context

logger = structlog.get_logger(__name__)

_PAUSE: Final = 1.0  # seconds for which a failing node is not asked
_HEARTBEAT: Final = 2.0  # seconds between two heartbeats on a subscribed channel
_LOOK_EVERY: Final = 2.0  # seconds between two checks that the cluster serves
_SILENCE: Final = 4.0  # seconds without a heartbeat after which we subscribe again
_WHOLE_CLUSTER: Final = "the cluster"

# These have no common base: the cluster's own errors are not RedisErrors.
_FAILURES: Final = (RedisError, RedisClusterException, OSError, TimeoutError, LookupError)


class RedisUnavailable(Exception):
    """Redis does not answer in time, or just failed to; go on without it."""


class GuardedRedis:
    """The Redis Cluster of the settings. Connects at the first use, and again after each loss."""

    def __init__(self, settings: CommonSettings) -> None:
        self._settings = settings
        self._timeout = settings.redis_timeout
        self._cluster: RedisCluster | None = None
        self._learning: asyncio.Task[None] | None = None
        self._nodes: dict[str, Node] = {}
        self._owners: dict[int, Node] = {}  # of the slots that were asked for since the last look
        self._looking: asyncio.Task[None] | None = None
        self.fault = ""
        """Why Redis did not serve every key at the last check; empty where it did."""
        self._paused_until = 0.0  # while no node is known
        self.silence = Silence("Redis", _LOOK_EVERY)

    async def start(self) -> None:
        """Connect now, so that the first request does not have to; a dead Redis is no error."""
        with contextlib.suppress(RedisUnavailable):
            await self._know_the_cluster()
            await asyncio.gather(
                *(self._ask(node, [("PING",)]) for node in list(self._nodes.values())),
                return_exceptions=True,
            )
        await self._look()
        self._looking = asyncio.create_task(self._look_for_ever())

    async def close(self) -> None:
        """Close all connections."""
        for task in (self._learning, self._looking):
            if task is not None:
                task.cancel()
        for node in self._nodes.values():
            node.close()
        cluster, self._cluster = self._cluster, None
        if cluster is not None:
            await _close(cluster)

    async def get(self, key: str) -> bytes | None:
        """Return the value of `key`, or None."""
        value: bytes | None = await self._do(key, "GET", key)
        return value

    async def set(self, key: str, value: bytes, *, seconds: int) -> None:
        """Set `key` for `seconds`."""
        await self._do(key, "SET", key, value, "EX", seconds)

    async def remember_first(self, key: str, value: bytes, *, seconds: int) -> bytes:
        """Set `key` for `seconds` unless it is set, and return its value afterwards."""
        earlier: bytes | None = await self._do(key, "SET", key, value, "EX", seconds, "NX", "GET")
        return value if earlier is None else earlier

    async def delete(self, key: str) -> None:
        """Delete `key`."""
        await self._do(key, "DEL", key)

    async def run(self, script: str, key: str, *arguments: str | bytes | int) -> Any:
        """Run `script` on `key` in one atomic step, and return its reply."""
        node = await self._owner(key)
        [reply] = await self._ask(node, [("EVALSHA", _digest(script), 1, key, *arguments)])
        if isinstance(reply, ErrorReply):  # it does not know the script, or does not own the key
            return await self._follow(
                node, lambda cluster: cluster.execute_command("EVAL", script, 1, key, *arguments)
            )
        return reply

    async def publish(self, channel: str, payload: bytes) -> None:
        """Publish on a sharded channel (SPUBLISH); there may be no listener."""
        await self._do(channel, "SPUBLISH", channel, payload)

    async def evaluate(self, script: str, calls: Iterable[tuple[str, Sequence[bytes]]]) -> None:
        """Run `script` once for each (key, arguments), on all nodes at once. Best effort."""
        by_node: dict[Node, list[tuple[str, Sequence[bytes]]]] = {}
        for key, arguments in calls:
            with contextlib.suppress(RedisUnavailable):
                by_node.setdefault(await self._owner(key), []).append((key, arguments))
        if len(by_node) == 1:  # needs no task
            [(node, some)] = by_node.items()
            with contextlib.suppress(RedisUnavailable):
                await self._evaluate_on(node, script, some)
            return
        await asyncio.gather(
            *(self._evaluate_on(node, script, some) for node, some in by_node.items()),
            return_exceptions=True,
        )

    async def subscribe(self, channel: str) -> AsyncIterator[bytes]:
        """Yield the messages of a sharded channel, for ever; subscribe again after any loss.

        A message is lost if it is published while there is no subscription. We publish heartbeats
        on the channel, to distinguish a quiet channel from a dead one: empty messages, which are
        not yielded.
        """
        heart = asyncio.create_task(self._beat(channel))
        try:
            while True:
                try:
                    async for payload in self._listen(channel):
                        yield payload
                except RedisUnavailable as error:
                    logger.warning("subscribing again", channel=channel, error=repr(error))
                await asyncio.sleep(0.2)
        finally:
            heart.cancel()

    @contextlib.asynccontextmanager
    async def listen(self, channel: str) -> AsyncIterator["Listening"]:
        """Listen to a sharded channel once: the caller learns of a loss, and publishes the beats
        without which a quiet channel counts as a dead one.
        """
        node = await self._owner(channel)
        try:
            subscription = await node.subscribe(channel, _SILENCE)
        except Exception as error:
            raise self._failed(node, error) from error
        listening = Listening(channel, subscription, partial(self._ask, node))
        try:
            yield listening
        finally:
            if subscription.ended:
                self._learn_anew()
            listening.end()

    async def _look_for_ever(self) -> None:
        while True:
            await tick(_LOOK_EVERY)
            try:
                await self._look()
            except Exception:
                logger.exception("could not check whether Redis serves")

    async def _look(self) -> None:
        """Ask the primaries whether the cluster serves every key, and log it when that changes."""
        self.silence.ask()
        nodes = dict(self._nodes)
        replies = await asyncio.gather(
            *(node.ask([("CLUSTER", "INFO")]) for node in nodes.values()), return_exceptions=True
        )
        facts = [reply if isinstance(reply, BaseException) else reply[0] for reply in replies]
        fault = judge(dict(zip(nodes, facts, strict=True)))
        fault = fault and (redis_fault() or fault)
        if fault:
            self._learn_anew()  # the nodes may have moved, or be different ones
        else:
            self.silence.answered()
        if fault != self.fault:
            logger.warning(
                "Redis does not serve every key" if fault else "Redis serves", fault=fault
            )
        self.fault = fault
        SERVING.set(0 if fault else 1)

    async def _beat(self, channel: str) -> None:
        while True:
            with contextlib.suppress(RedisUnavailable):
                await self.publish(channel, b"")
            await tick(_HEARTBEAT)

    async def _listen(self, channel: str) -> AsyncIterator[bytes]:
        async with self.listen(channel) as listening:
            while (payload := await listening.next()) is not None:
                if payload:
                    yield payload
        raise RedisUnavailable("the subscription to the channel was lost")

    async def _do(self, key: str, *command: str | bytes | int) -> Any:
        """Return the reply to a command on `key`."""
        node = await self._owner(key)
        [reply] = await self._ask(node, [command])
        if isinstance(reply, ErrorReply):
            return await self._follow(node, lambda cluster: cluster.execute_command(*command))
        return reply

    async def _evaluate_on(
        self, node: Node, script: str, calls: Sequence[tuple[str, Sequence[bytes]]]
    ) -> None:
        digest = _digest(script)
        replies = await self._ask(
            node, [("EVALSHA", digest, 1, key, *arguments) for key, arguments in calls]
        )
        # The node does not know the script yet, or has given the key to another.
        refused = [
            call
            for call, reply in zip(calls, replies, strict=True)
            if isinstance(reply, ErrorReply)
        ]

        async def run(cluster: RedisCluster) -> None:
            pipeline = cluster.pipeline()
            for key, arguments in refused:
                pipeline.execute_command("EVAL", script, 1, key, *arguments)
            await pipeline.execute(raise_on_error=False)

        if refused:
            await self._follow(node, run)

    async def _ask(self, node: Node, commands: Sequence[Command]) -> list[Any]:
        """Return the node's replies. A failure pauses calls and raises `RedisUnavailable`."""
        try:
            return await node.ask(commands)
        except Exception as error:
            raise self._failed(node, error) from error

    async def _follow(self, node: Node, call: Callable[[RedisCluster], Awaitable[Any]]) -> Any:
        """Do through redis-py what `node` refused: redis-py follows the key to its current node."""
        cluster = await self._know_the_cluster()
        try:
            async with asyncio.timeout(self._timeout):
                return await call(cluster)
        except Exception as error:
            raise self._failed(node, error) from error
        finally:
            self._owners.clear()  # redis-py may have learned that the slot has moved

    async def _owner(self, key: str) -> Node:
        """Return the node that owns `key`. Raises `RedisUnavailable` while calls to it pause."""
        slot = key_slot(key.encode())
        node = self._owners.get(slot) or await self._look_up(slot)
        if node.paused_until > time.monotonic():
            raise RedisUnavailable("Redis has just failed; it is not asked for a moment")
        return node

    async def _look_up(self, slot: int) -> Node:
        """Return the node that owns `slot` by what redis-py knows, and remember it."""
        cluster = self._cluster
        if cluster is None or not self._nodes:
            cluster = await self._know_the_cluster()
        try:
            known = cluster.nodes_manager.get_node_from_slot(slot)
        except Exception as error:
            self._learn_anew()
            raise RedisUnavailable(repr(error)) from error
        node = self._owners[slot] = self._nodes.get(known.name) or self._meet(known)
        return node

    def _meet(self, known: ClusterNode) -> Node:
        user, password = self._login()
        tls = tls_context(self._settings)
        address = Address(known.host, int(known.port), user, password, tls)
        node = self._nodes[known.name] = Node(address, self._timeout, self._login)
        return node

    def _login(self) -> tuple[str | None, str | None]:
        """Return the current user and password."""
        url = urlsplit(self._settings.renewed_urls("redis")[0])
        return url.username, url.password

    def _failed(self, node: Node, error: BaseException) -> RedisUnavailable:
        """Pause calls to the node for a while, ask the others which node replaced it, and log it.

        This catches every exception: no fault of a cache or of its client library may fail a
        request.
        """
        node.paused_until = time.monotonic() + _PAUSE
        surprise = None if isinstance(error, _FAILURES) else error
        logger.warning("Redis is unavailable", node=node.name, error=repr(error), exc_info=surprise)
        self._learn_anew()
        return RedisUnavailable(repr(error))

    async def _know_the_cluster(self) -> RedisCluster:
        """Return redis-py's client as soon as it knows the nodes; waits four timeouts at most."""
        if self._nodes and self._cluster is not None:
            return self._cluster
        if self._paused_until > time.monotonic():
            raise RedisUnavailable("Redis has just failed; it is not asked for a moment")
        await asyncio.wait({self._learn_anew()}, timeout=self._timeout * 4)
        if self._nodes and self._cluster is not None:
            return self._cluster
        self._paused_until = time.monotonic() + _PAUSE
        raise RedisUnavailable("no node of the Redis Cluster answers")

    def _learn_anew(self) -> asyncio.Task[None]:
        """Ask the cluster's nodes again which keys they own, unless that is under way."""
        if self._learning is None or self._learning.done():
            self._learning = asyncio.create_task(self._learn())
        return self._learning

    async def _learn(self) -> None:
        cluster = await self._newly_known()
        if cluster is None:
            return
        before, self._cluster = self._cluster, cluster
        self._owners = {}
        primaries = {node.name: node for node in cluster.get_primaries()}
        for name in self._nodes.keys() - primaries.keys():
            self._nodes.pop(name).close()
        for name in primaries.keys() - self._nodes.keys():
            self._meet(primaries[name])
        if before is not None:
            await _close(before)

    async def _newly_known(self) -> RedisCluster | None:
        """Return a client that has just learned which node owns what, None where no node answers.

        The configured names come first, because the known nodes may all have moved by now, and
        another cluster's nodes may have their addresses. Each time it is a new client: a client
        that has learned the nodes forgets the names that it started from.
        """
        known = [] if self._cluster is None else self._cluster.get_nodes()
        configured = [urlsplit(url) for url in self._settings.renewed_urls("redis")]
        for places in (
            [(url.hostname or "127.0.0.1", url.port or 6379) for url in configured],
            [(node.host, int(node.port)) for node in known],
        ):
            if not places:
                continue
            cluster = None
            try:
                cluster = _client(self._settings, places)
                await cluster.initialize()
            except Exception as error:  # noqa: BLE001 - as in `_failed`
                logger.warning("Redis is unavailable", node=_WHOLE_CLUSTER, error=repr(error))
                if cluster is not None:
                    await _close(cluster)
            else:
                return cluster
        return None


class Listening:
    """One subscription to a sharded channel, and a way to publish on it at the same node.

    The order of what is published there is the order in which it is heard.
    """

    def __init__(
        self,
        channel: str,
        subscription: Subscription,
        ask: Callable[[Sequence[Command]], Awaitable[list[Any]]],
    ) -> None:
        self._channel = channel
        self._subscription = subscription
        self._ask = ask

    async def next(self) -> bytes | None:
        """Return the next message, None when no more will come."""
        return await self._subscription.next()

    async def publish(self, payload: bytes, *before: Command) -> None:
        """Publish at the node where we listen, after the commands `before`. Raises
        `RedisUnavailable` if it does not take them all, and ends the subscription if the node
        refuses: the channel may have moved, or the cluster be down.
        """
        replies = await self._ask([*before, ("SPUBLISH", self._channel, payload)])
        refused = [reply for reply in replies if isinstance(reply, ErrorReply)]
        if refused:
            self.end()
            raise RedisUnavailable(f"the channel's node refused: {refused[0]}")

    def end(self) -> None:
        """End the subscription."""
        self._subscription.end()


@cache
def _digest(script: str) -> str:
    """Return the name by which nodes know `script`. Cached: the scripts are a few constants."""
    return sha1(script.encode(), usedforsecurity=False).hexdigest()


async def _close(cluster: RedisCluster) -> None:
    with contextlib.suppress(*_FAILURES):
        await cluster.aclose()


def _client(settings: CommonSettings, places: Sequence[tuple[str, int]]) -> RedisCluster:
    url = urlsplit(settings.renewed_urls("redis")[0])
    tls = tls_context(settings)
    client = RedisCluster(
        startup_nodes=[ClusterNode(host, port) for host, port in places],
        username=url.username,
        password=url.password,
        ssl=tls is not None,
        require_full_coverage=False,
        retry=Retry(NoBackoff(), 1),
        socket_timeout=settings.redis_timeout * 8,
        socket_connect_timeout=settings.redis_timeout,
    )
    if tls is not None:
        use_context(client, tls)
    # redis-py's own callback turns the reply of SET … GET into a bool, unless `set` is called.
    client.set_response_callback("SET", _as_replied)
    return client


def _as_replied(response: Any, **kwargs: Any) -> Any:  # noqa: ARG001 - as redis-py calls it
    return response
