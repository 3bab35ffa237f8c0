"""The operator is killed before and after each of its writes; the next one goes on from there."""

import pytest
from kmock._internal.apps import Server

from microfin_operator.kinds import (
    JOB,
    MICROFIN_CLUSTER,
    STATEFUL_SET,
)
from support.operator import states
from support.operator.emulated_api import EmulatedApi
from support.operator.process import Killed, live, status_of
from support.operator.world import World

STRIMZI = {"strimzi": states.STRIMZI}
BOOTSTRAP = {"bootstrap": {"servers": "kafka:9092"}}


def check(api: EmulatedApi, world: World, partitions: int) -> None:
    """Everything has as many partitions as asked for, and nothing is there twice."""
    assert (world.kafka, world.routing[1]) == (partitions, partitions)
    (workers,) = api.items(STATEFUL_SET)
    assert workers["spec"]["replicas"] == partitions
    status = status_of(api)
    assert status["partitions"] == dict.fromkeys(("topic", "active", "desired"), partitions)
    names = [job["metadata"]["name"] for job in api.items(JOB)]
    assert len(names) == len(set(names))


async def lives(api: EmulatedApi, world: World, kill_at: int) -> bool:
    """Live until Ready. Return whether it was killed on the way, so that a second one went on."""
    try:
        await live(api, world.port, writes=kill_at)
    except Killed:
        await live(api, world.port)
        return True
    return False


async def create_and_grow(topic: dict[str, object], kill_at: int) -> bool:
    """Create a cluster and grow it, killed once in each; return whether it was killed."""
    async with EmulatedApi() as api, Server(api):
        world = World(api)
        async with world.running():
            await api.put(MICROFIN_CLUSTER, fresh(topic))
            killed = await lives(api, world, kill_at)
            check(api, world, 3)
            await api.change(MICROFIN_CLUSTER, "apps", "bank", {"spec": {"partitions": 6}})
            killed = await lives(api, world, kill_at) or killed
            check(api, world, 6)
            assert world.routing == (2, 6), "the routing grew once"
            assert await live(api, world.port) == 0, "at rest nothing is written"
            return killed


@pytest.mark.long
@pytest.mark.parametrize("topic", [STRIMZI, BOOTSTRAP], ids=["strimzi", "bootstrap"])
async def test_killed_at_every_write_of_creation_and_growth(topic: dict[str, object]) -> None:
    kill_at = 0
    while await create_and_grow(topic, kill_at):
        kill_at += 1
    assert kill_at > 10


def fresh(topic: dict[str, object]) -> dict[str, object]:
    item = states.resource(topic=topic)
    del item["metadata"]["uid"], item["metadata"]["generation"], item["status"]
    return item
