"""Whatever people and machines do to a cluster, it comes to rest as desired, and never shrinks."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import pytest
from kmock._internal.apps import Server

from microfin_operator.kinds import (
    DISRUPTION_BUDGET,
    JOB,
    KAFKA_TOPIC,
    MICROFIN_CLUSTER,
    POD,
    SERVICE,
    STATEFUL_SET,
)
from microfin_operator.reconcile import reconcile
from microfin_operator.worker_reports import WorkerReader
from support.operator import states
from support.operator.emulated_api import EmulatedApi
from support.operator.process import MortalApi, live, status_of
from support.operator.world import World

ROUNDS = 10


class Disturber:
    """Does to a cluster what its seed says."""

    def __init__(self, api: EmulatedApi, world: World, seed: int) -> None:
        self.api = api
        self.world = world
        world.disturbed = True
        self.chance = random.Random(seed)
        self.asked = 3

    async def disturb(self) -> str:
        """Do one thing and return its name."""
        deeds: list[Callable[[], Awaitable[None]]] = [
            self.ask_for_more,
            self.scale_by_hand,
            self.grow_the_kafka_topic,
            self.grow_in_kafka,
            self.delete_a_pod,
            self.delete_an_object,
            self.change_the_image,
            self.let_growths_fail,
            self.stop_or_start_strimzi,
        ]
        deed = self.chance.choice(deeds)
        await deed()
        return deed.__name__

    async def ask_for_more(self) -> None:
        self.asked += self.chance.randint(0, 2)
        await self._change_cluster({"partitions": self.asked})

    async def scale_by_hand(self) -> None:
        if self.api.item(STATEFUL_SET, "apps", "bank-worker"):
            patch = {"spec": {"replicas": self.chance.randint(0, 8)}}
            await self.api.change(STATEFUL_SET, "apps", "bank-worker", patch)

    async def grow_the_kafka_topic(self) -> None:
        topic = self.api.item(KAFKA_TOPIC, "data", "microfin.commands")
        if topic is not None:
            more = topic["spec"]["partitions"] + 1
            patch = {"spec": {"partitions": more}}
            await self.api.change(KAFKA_TOPIC, "data", "microfin.commands", patch)

    async def grow_in_kafka(self) -> None:
        if self.world.kafka:
            self.world.kafka += 1

    async def delete_a_pod(self) -> None:
        pods = self.api.items(POD)
        if pods:
            await self.api.remove(POD, "apps", self.chance.choice(pods)["metadata"]["name"])

    async def delete_an_object(self) -> None:
        kind = self.chance.choice([SERVICE, DISRUPTION_BUDGET, JOB, STATEFUL_SET])
        for item in self.api.items(kind)[:1]:
            await self.api.remove(kind, "apps", item["metadata"]["name"])

    async def change_the_image(self) -> None:
        tag = self.chance.randint(1, 9)
        await self._change_cluster({"worker": {"image": f"ghcr.io/microfin/worker:{tag}"}})

    async def let_growths_fail(self) -> None:
        self.world.failing_growths = 1

    async def stop_or_start_strimzi(self) -> None:
        self.world.strimzi_runs = not self.world.strimzi_runs

    async def _change_cluster(self, spec: dict[str, object]) -> None:
        await self.api.change(MICROFIN_CLUSTER, "apps", "bank", {"spec": spec})


@pytest.mark.parametrize("seed", range(12))
async def test_a_disturbed_cluster_comes_to_rest(seed: int) -> None:
    async with EmulatedApi() as api, Server(api):
        world = World(api)
        async with world.running():
            item = states.resource()
            del item["metadata"]["uid"], item["metadata"]["generation"], item["status"]
            await api.put(MICROFIN_CLUSTER, item)
            disturber = Disturber(api, world, seed)
            deeds = []
            most = 0
            for _ in range(ROUNDS):
                deeds.append(await disturber.disturb())
                await passes(api, world, disturber.chance.randint(0, 3))
                partitions = status_of(api).get("partitions", {}).get("topic", 0)
                assert partitions >= most, f"partitions shrank after {deeds}"
                most = partitions
            world.strimzi_runs = True
            world.failing_growths = 0
            await live(api, world.port, patience=40)
            (workers,) = api.items(STATEFUL_SET)
            counts = (world.kafka, workers["spec"]["replicas"], world.routing[1])
            assert len(set(counts)) == 1, (counts, deeds)
            assert counts[0] >= disturber.asked


async def passes(api: EmulatedApi, world: World, count: int) -> None:
    """Let the operator make some passes."""
    client = MortalApi(str(api.url).rstrip("/"))
    workers = WorkerReader(world.port)
    try:
        for _ in range(count):
            await reconcile(client, workers, "apps", "bank", datetime.now(UTC))
            await asyncio.sleep(0.02)
    finally:
        await workers.close()
        await client.close()
