"""The guarded Redis Cluster on real nodes, and on one that hangs."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from microfin.process.settings import CommonSettings
from microfin.redis import guarded
from microfin.redis.guarded import GuardedRedis, RedisUnavailable
from microfin.redis.node import Address, Node
from microfin.redis.state import judge
from microfin_local.configuration import Configuration
from microfin_local.platform import Platform
from support.waiting import until

_SET = "return redis.call('SET', KEYS[1], ARGV[1], 'EX', 60)"


@pytest_asyncio.fixture
async def redis(platform: Platform) -> AsyncIterator[GuardedRedis]:
    redis = GuardedRedis(CommonSettings(redis=platform.endpoints.redis[0]))
    yield redis
    await redis.close()


async def test_each_key_is_found_on_its_node(redis: GuardedRedis) -> None:
    keys = [f"key {n}" for n in range(50)]
    await asyncio.gather(*(redis.set(key, key.encode(), seconds=60) for key in keys))
    assert await asyncio.gather(*map(redis.get, keys)) == [key.encode() for key in keys]
    await redis.delete(keys[0])
    assert await redis.get(keys[0]) is None


async def test_the_first_is_remembered(redis: GuardedRedis) -> None:
    await redis.delete("first")
    assert await redis.remember_first("first", b"one", seconds=60) == b"one"
    assert await redis.remember_first("first", b"two", seconds=60) == b"one"


async def test_a_script_that_the_nodes_have_forgotten_runs(
    redis: GuardedRedis, platform: Platform
) -> None:
    keys = [f"script {n}" for n in range(50)]
    for value in (b"known", b"forgotten"):
        await redis.evaluate(_SET, [(key, [value]) for key in keys])
        assert set(await asyncio.gather(*map(redis.get, keys))) == {value}
        assert await redis.run(_SET, keys[0], value) == b"OK"
        for url in platform.endpoints.redis:
            async with Redis.from_url(url) as node:
                await node.script_flush()


async def test_a_lost_connection_is_made_again(redis: GuardedRedis, platform: Platform) -> None:
    await redis.set("before", b"it", seconds=60)
    for url in platform.endpoints.redis:
        async with Redis.from_url(url) as node:
            await node.client_kill_filter(_type="normal", skipme=True)
    await asyncio.sleep(0.1)
    assert await redis.get("before") == b"it"


async def test_a_key_is_followed_to_another_node(redis: GuardedRedis) -> None:
    await redis.set("moved", b"it", seconds=60)
    assert redis._cluster is not None
    owner = redis._cluster.get_node_from_key("moved")
    assert owner is not None
    other = next(node for name, node in redis._nodes.items() if name != owner.name)
    redis._nodes[owner.name] = other  # it answers MOVED
    assert await redis.get("moved") == b"it"
    await redis.set("moved", b"there", seconds=60)
    await redis.evaluate(_SET, [("moved", [b"and there"])])
    assert await redis.get("moved") == b"and there"
    await redis.run(_SET, "moved", b"once more")
    assert await redis.get("moved") == b"once more"


@pytest_asyncio.fixture
async def hung_port() -> AsyncIterator[int]:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


async def test_the_first_is_remembered_by_another_node(redis: GuardedRedis) -> None:
    """redis-py makes a bool of the reply; a repeat then seemed to be another use of its key."""
    owner = await redis._owner("first")
    other = next(node for name, node in redis._nodes.items() if name != owner.name)
    await redis.delete("first")
    redis._nodes[owner.name] = other  # it answers MOVED
    assert await redis.remember_first("first", b"one", seconds=60) == b"one"
    assert await redis.remember_first("first", b"two", seconds=60) == b"one"


async def test_all_that_wait_for_a_hung_node_get_an_error(hung_port: int) -> None:
    node = Node(Address("127.0.0.1", hung_port, None, None, tls=None), 0.05)
    ends = await asyncio.gather(*(node.ask([("PING",)]) for _ in range(5)), return_exceptions=True)
    assert [type(end) for end in ends] == [TimeoutError] * 5
    node.close()


async def test_a_password_that_is_refused_is_reported(platform: Platform) -> None:
    port = int(platform.endpoints.redis[0].rpartition(":")[2])
    node = Node(Address("127.0.0.1", port, "nobody", "wrong", tls=None), 1.0)
    with pytest.raises(ConnectionRefusedError, match="does not let us in"):
        await node.ask([("PING",)])
    node.close()


async def test_a_hung_cluster_is_unavailable(hung_port: int) -> None:
    redis = GuardedRedis(CommonSettings(redis=f"redis://127.0.0.1:{hung_port}", redis_timeout=0.05))
    for _ in range(2):
        with pytest.raises(RedisUnavailable):
            await redis.get("anything")
    await redis.close()


async def test_a_call_that_waits_for_a_node_that_leaves_gets_an_error(hung_port: int) -> None:
    """It is no cancellation of his own: that would end his request without an answer."""
    node = Node(Address("127.0.0.1", hung_port, None, "a password", None), timeout=5)
    asking = asyncio.create_task(node.ask([("PING",)]))
    await asyncio.sleep(0.1)
    node.close()
    with pytest.raises(ConnectionAbortedError):
        await asking


async def test_a_surprise_is_unavailability(
    redis: GuardedRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No fault of the client library may fail a request."""
    await redis.set("key", b"it", seconds=60)

    def surprise(*_: object) -> None:
        raise RuntimeError("the library is at fault")

    assert redis._cluster is not None
    for owner, name in ((type(redis._cluster.nodes_manager), "get_node_from_slot"), (Node, "ask")):
        redis._owners.clear()
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, surprise)
            with pytest.raises(RedisUnavailable):
                await redis.get("key")


@pytest.mark.usefixtures("real_components")
async def test_nodes_that_die_are_no_surprise(tmp_path: Path) -> None:
    """All states of the client library while the cluster falls apart and is back again."""
    form = Configuration(state=tmp_path, components=frozenset({"redis"}), random_ports=True)
    async with Platform(form) as platform:
        redis = GuardedRedis(CommonSettings(redis=" ".join(platform.endpoints.redis)))
        asking = [asyncio.create_task(_ask_for_ever(redis, n)) for n in range(20)]
        for names in (["redis-0"], ["redis-0", "redis-1", "redis-2"], ["redis-1", "redis-2"]):
            await asyncio.sleep(1)
            for name in names:
                await platform.kill(name)
        await asyncio.sleep(2)
        assert not [task for task in asking if task.done()]
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        await redis.close()


async def _ask_for_ever(redis: GuardedRedis, number: int) -> None:
    while True:
        key = f"key {number}"
        with contextlib.suppress(RedisUnavailable):
            await redis.remember_first(key, b"it", seconds=60)
            await redis.publish(key, b"it")
        await asyncio.sleep(0.002)


class _Front:
    """A name that stays, as a Service or a DNS name does: it leads to where the nodes are now."""

    def __init__(self) -> None:
        self.node = ""
        self.url = ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._forward, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = urlsplit(self.node)
        with contextlib.suppress(OSError):
            from_node, to_node = await asyncio.open_connection(there.hostname, there.port)
            await asyncio.gather(_pipe(reader, to_node), _pipe(from_node, writer))
        writer.close()


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
    writer.close()


def _redis_alone(state: Path) -> Configuration:
    return Configuration(state=state, components=frozenset({"redis"}), random_ports=True)


async def _until_done(call: Callable[[], Awaitable[object]]) -> None:
    """Call again until Redis has accepted the call."""

    async def is_done() -> bool:
        await call()
        return True

    await until("Redis accepts a call", is_done, seconds=60, not_yet=(RedisUnavailable,))


@pytest.mark.usefixtures("real_components")
async def test_nodes_that_are_all_elsewhere_are_found_by_the_configured_name(
    tmp_path: Path,
) -> None:
    """Requests, scripts and subscriptions of a client that was up before."""
    heard: asyncio.Queue[bytes] = asyncio.Queue()

    async def listen(redis: GuardedRedis) -> None:
        async for message in redis.subscribe("replies:api"):
            heard.put_nowait(message)

    async with contextlib.AsyncExitStack() as stack:
        front = await stack.enter_async_context(_Front())
        there = await stack.enter_async_context(Platform(_redis_alone(tmp_path / "elsewhere")))
        async with Platform(_redis_alone(tmp_path / "here")) as here:
            front.node = here.endpoints.redis[0]
            redis = GuardedRedis(CommonSettings(redis=front.url))
            await redis.start()
            await asyncio.gather(*(redis.set(f"key {n}", b"here", seconds=60) for n in range(30)))
            listening = asyncio.create_task(listen(redis))
            stack.callback(listening.cancel)
            await _until_heard(redis, heard, b"here")
            front.node = there.endpoints.redis[0]
        async with asyncio.timeout(40):
            for n in range(30):
                await _until_done(partial(redis.set, f"key {n}", b"there", seconds=60))
            await _until_heard(redis, heard, b"there")
        await redis.evaluate(_SET, [(f"key {n}", [b"by script"]) for n in range(30)])
        assert {await redis.get(f"key {n}") for n in range(30)} == {b"by script"}
        await redis.close()


async def _until_heard(redis: GuardedRedis, heard: asyncio.Queue[bytes], what: bytes) -> None:
    while heard.empty() or heard.get_nowait() != what:
        await _until_done(lambda: redis.publish("replies:api", what))
        await asyncio.sleep(0.2)


@pytest.mark.usefixtures("real_components")
async def test_a_configured_name_that_is_gone_does_not_end_what_is_known(tmp_path: Path) -> None:
    """The nodes that are known are asked where the configured names lead nowhere."""
    async with _Front() as front, Platform(_redis_alone(tmp_path)) as platform:
        front.node = platform.endpoints.redis[0]
        redis = GuardedRedis(CommonSettings(redis=front.url))
        await redis.start()
        front.node = "redis://127.0.0.1:1"
        await redis._learn_anew()
        assert await redis.remember_first("key", b"it", seconds=60) == b"it"
        owner = (await redis._owner("key")).name.rpartition(":")[2]
        redis_nodes = {str(platform.port_of(name)): name for name in platform.process_names}
        await platform.kill(redis_nodes[owner])
        async with asyncio.timeout(40):
            await _until_done(lambda: redis.set("key", b"again", seconds=60))
        await redis.close()


async def _on_all(platform: Platform, *words: str | int) -> None:
    for url in platform.endpoints.redis:
        async with Redis.from_url(url) as node:
            await node.execute_command(*words)


async def _until_fault(redis: GuardedRedis, what: str) -> None:
    def is_so() -> bool:
        return what in redis.fault if what else redis.fault == ""

    await until(f"the fault is {what!r}", is_so, seconds=40)


class _Said:
    """Takes the place of the gauge SERVING, which all clients of this process would set."""

    def __init__(self) -> None:
        self.values: list[int] = []

    def set(self, value: int) -> None:
        self.values.append(value)


@pytest.mark.usefixtures("real_components")
async def test_a_cluster_that_serves_not_every_key_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = _Said()
    monkeypatch.setattr(guarded, "SERVING", said)
    async with Platform(_redis_alone(tmp_path)) as platform:
        url = platform.endpoints.redis[0]
        redis = GuardedRedis(CommonSettings(redis=url))
        await redis.start()
        assert (redis.fault, set(said.values)) == ("", {1})

        async with Redis.from_url(url) as node:
            await node.execute_command("CLUSTER", "DELSLOTS", 7)
            await _until_fault(redis, "1 of the Redis Cluster's 16384 slots")
            assert 0 in said.values

            await _on_all(platform, "CONFIG", "SET", "cluster-require-full-coverage", "yes")
            await node.execute_command("CLUSTER", "DELSLOTS", 8)
            await _until_fault(redis, "its cluster is down")
            late = GuardedRedis(CommonSettings(redis=url))
            await late.start()
            assert "its cluster is down" in late.fault, "it is said from the start"
            await late.close()

            await node.execute_command("CLUSTER", "ADDSLOTS", 7, 8)
        said.values.clear()
        await _until_fault(redis, "")
        assert 1 in said.values

        await _on_all(platform, "CONFIG", "SET", "cluster-require-full-coverage", "no")
        await platform.stop_process("redis-2")
        await _until_fault(redis, "of the Redis Cluster's 16384 slots")
        await redis.close()


async def test_no_cluster_at_all_is_said() -> None:
    redis = GuardedRedis(CommonSettings(redis="redis://127.0.0.1:1"))
    await redis.start()
    assert redis.fault == "no node of the Redis Cluster answers"
    await redis.close()


@pytest.mark.parametrize("order", [("away", "there"), ("there", "away")])
def test_those_that_answer_say_what_is_wrong(order: tuple[str, str]) -> None:
    """In whatever order the nodes are known."""
    facts = b"cluster_state:ok\r\ncluster_slots_ok:10923\r\n"
    replies = {"away": ConnectionRefusedError(), "there": facts}
    assert "5461 of" in judge({node: replies[node] for node in order})
    alone = {"away": TimeoutError(), "there": b"cluster_state:ok\r\ncluster_slots_ok:16384\r\n"}
    assert judge({node: alone[node] for node in order}) == "Redis node away does not answer"
