"""The whole operator: kopf's watches, passes, HTTP, on an API server in memory."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from kopf.testing import KopfRunner

from microfin_operator.api_silence import SAID_AFTER
from microfin_operator.kinds import (
    EVENT,
    JOB,
    KAFKA,
    KAFKA_TOPIC,
    MICROFIN_CLUSTER,
    POD,
    STATEFUL_SET,
    KubernetesObject,
)
from microfin_operator.names import ALLOWED_NAMESPACES
from support.operator import states
from support.operator.emulated_api import EmulatedApi
from support.operator.line import Line
from support.operator.process import is_ready, status_of
from support.operator.world import World
from support.ports import free_port
from support.waiting import until

SILENT = "microfin_operator_api_silent_seconds "
COMMAND = ["run", "-A", "--standalone", "-m", "microfin_operator.handlers"]


class Operator:
    """Starts and stops the operator in a thread of its own, as kopf's runner does."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._runner: KopfRunner | None = None

    async def start(self) -> None:
        """Start it."""
        self._runner = KopfRunner(COMMAND, timeout=20)
        self._runner.__enter__()

    async def stop(self) -> None:
        """Stop it, and fail with its output if it has failed."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await asyncio.to_thread(runner.__exit__, None, None, None)
            assert runner.exit_code == 0, runner.output

    async def page(self, path: str) -> tuple[int, str]:
        """Return an answer of its HTTP."""
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{self.port}{path}") as response,
        ):
            return response.status, await response.text()


@pytest_asyncio.fixture
async def operator(
    world: World, kubeconfig: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Operator]:
    port = free_port()
    for name, value in {
        "HTTP_HOST": "127.0.0.1",
        "HTTP_PORT": port,
        "WORKER_PORT": world.port,
        "LOOK_SECONDS": 0.5,
        "RESYNC_SECONDS": 600,
    }.items():
        monkeypatch.setenv(f"MICROFIN_OPERATOR_{name}", str(value))
    started = Operator(port)
    await started.start()
    try:
        yield started
    finally:
        await started.stop()


async def until_page(operator: Operator, words: str, *, there: bool = True) -> None:
    """Wait until the metrics have, or no longer have, some words."""

    async def probe() -> bool:
        return (words in (await operator.page("/metrics"))[1]) is there

    await until(f"{words!r} on the page", probe, seconds=10)


async def until_ready(api: EmulatedApi, partitions: int) -> None:
    def probe() -> bool:
        status = status_of(api)
        active = status.get("partitions", {}).get("active")
        return is_ready(status) and active == partitions

    await until(f"Ready with {partitions} partitions", probe)


async def create(api: EmulatedApi, **spec: Any) -> None:
    item = states.resource(**spec)
    del item["metadata"]["uid"], item["metadata"]["generation"], item["status"]
    await api.put(MICROFIN_CLUSTER, item)


def workers(api: EmulatedApi) -> KubernetesObject:
    (found,) = api.items(STATEFUL_SET)
    return found


def reasons(api: EmulatedApi) -> list[str]:
    return [event["reason"] for event in api.items(EVENT)]


async def test_a_cluster_becomes_ready_and_grows(
    api: EmulatedApi, world: World, operator: Operator
) -> None:
    await create(api)
    await until_ready(api, 3)
    await api.change(MICROFIN_CLUSTER, "apps", "bank", {"spec": {"partitions": 6}})
    await until_ready(api, 6)
    assert (world.kafka, world.routing) == (6, (2, 6))
    assert status_of(api)["routing"] == {"generation": 2, "count": 6}
    assert {"Growing", "NotGrowing", "AllInSync"} <= set(reasons(api))


async def test_a_topic_grown_by_hand_is_adopted(
    api: EmulatedApi, world: World, operator: Operator
) -> None:
    await create(api)
    await until_ready(api, 3)
    await api.change(KAFKA_TOPIC, "data", "microfin.commands", {"spec": {"partitions": 6}})
    await until_ready(api, 6)
    assert workers(api)["spec"]["replicas"] == 6
    assert states.condition(status_of(api), "TopicInSync")["reason"] == "Adopted"


async def test_a_topic_grown_behind_strimzis_back_is_adopted(
    api: EmulatedApi, world: World, operator: Operator
) -> None:
    await create(api)
    await until_ready(api, 3)
    world.kafka = 6
    await until_ready(api, 6)
    item = api.item(KAFKA_TOPIC, "data", "microfin.commands")
    assert item is not None
    assert item["spec"]["partitions"] == 6


async def test_a_topic_of_others_is_not_seized(
    api: EmulatedApi, world: World, operator: Operator
) -> None:
    """First its Kafka does not allow it, then somebody else has set its retention."""
    await api.change(
        KAFKA, "data", "kafka", {"metadata": {"annotations": {ALLOWED_NAMESPACES: "other"}}}
    )
    spec = {"partitions": 3, "replicas": 3, "config": {"retention.ms": "1000"}}
    metadata = {"name": "microfin.commands", "namespace": "data", "generation": 1, "labels": {}}
    await api.put(KAFKA_TOPIC, {"metadata": metadata, "spec": spec})
    await create(api)

    def degraded(reason: str, words: str) -> bool:
        conditions = status_of(api).get("conditions", ())
        found = [it for it in conditions if it["type"] == "Degraded"]
        return any(it["reason"] == reason and words in it["message"] for it in found)

    def as_before() -> bool:
        topic = api.item(KAFKA_TOPIC, "data", "microfin.commands")
        return topic is not None and topic["spec"] == spec and not api.items(STATEFUL_SET)

    await until("it is not allowed", lambda: degraded("TopicNotAllowed", "allow-namespaces=apps"))
    assert as_before()
    await api.change(
        KAFKA, "data", "kafka", {"metadata": {"annotations": {ALLOWED_NAMESPACES: "apps"}}}
    )
    words = 'conflict with "others": .spec.config.retention.ms'
    await until("a conflict", lambda: degraded("Refused", words))
    topic = api.item(KAFKA_TOPIC, "data", "microfin.commands")
    assert topic is not None
    assert topic["spec"] == spec


async def test_kafka_without_strimzi(api: EmulatedApi, world: World, operator: Operator) -> None:
    await create(api, topic={"bootstrap": {"servers": "kafka:9092"}})
    await until_ready(api, 3)
    await api.change(MICROFIN_CLUSTER, "apps", "bank", {"spec": {"partitions": 6}})
    await until_ready(api, 6)
    assert {job["metadata"]["name"] for job in api.items(JOB)} == {
        "bank-topic-3",
        "bank-topic-6",
        "bank-grow-6",
    }


async def test_workers_scaled_by_hand_are_set_back(
    api: EmulatedApi, world: World, operator: Operator
) -> None:
    await create(api)
    await until_ready(api, 3)
    await api.change(STATEFUL_SET, "apps", "bank-worker", {"spec": {"replicas": 1}})
    await until("three workers again", lambda: workers(api)["spec"]["replicas"] == 3)
    await until("the Event", lambda: "ReplicasRestored" in reasons(api))
    await until_ready(api, 3)


async def test_a_new_image_goes_round_partition_by_partition(
    api: EmulatedApi, world: World, operator: Operator
) -> None:
    await create(api)
    await until_ready(api, 3)
    patch = {"spec": {"worker": {"image": "ghcr.io/microfin/worker:2"}}}
    await api.change(MICROFIN_CLUSTER, "apps", "bank", patch)
    await until("all rolled", lambda: len(world.rolled) == 3)
    await until_ready(api, 3)
    assert world.rolled == ["bank-worker-2", "bank-worker-1", "bank-worker-0"]
    assert world.most_down_at_once <= 1


async def test_a_broken_image_is_reported_and_can_be_reverted(
    api: EmulatedApi, world: World, operator: Operator
) -> None:
    await create(api)
    await until_ready(api, 3)
    world.broken_image = "ghcr.io/microfin/worker:broken"
    patch = {"spec": {"worker": {"image": world.broken_image}}}
    await api.change(MICROFIN_CLUSTER, "apps", "bank", patch)
    await until("Degraded", lambda: status_of(api)["phase"] == "Degraded")
    assert "ImagePullBackOff" in states.condition(status_of(api), "Degraded")["message"]
    assert len(world.rolled) == 1, "the others are left alone"
    patch = {"spec": {"worker": {"image": "ghcr.io/microfin/worker:1"}}}
    await api.change(MICROFIN_CLUSTER, "apps", "bank", patch)
    await until_ready(api, 3)


async def test_a_deleted_pod_is_waited_for(
    api: EmulatedApi, world: World, operator: Operator
) -> None:
    await create(api)
    await until_ready(api, 3)
    await api.remove(POD, "apps", "bank-worker-1")
    await until_ready(api, 3)


async def test_a_paused_cluster_is_left_alone(
    api: EmulatedApi, world: World, operator: Operator
) -> None:
    await create(api, paused=True)
    await until("Paused", lambda: status_of(api).get("phase") == "Paused")
    assert api.items(STATEFUL_SET) == []
    await api.change(MICROFIN_CLUSTER, "apps", "bank", {"spec": {"paused": False}})
    await until_ready(api, 3)


async def test_the_operator_is_restarted_in_the_middle_of_a_growth(
    api: EmulatedApi, world: World, operator: Operator
) -> None:
    await create(api)
    await until_ready(api, 3)
    world.strimzi_runs = False
    await api.change(MICROFIN_CLUSTER, "apps", "bank", {"spec": {"partitions": 6}})
    await until(
        "the topic's new number",
        lambda: api.item(KAFKA_TOPIC, "data", "microfin.commands")["spec"]["partitions"] == 6,  # type: ignore[index]
    )
    await operator.stop()
    world.strimzi_runs = True
    await operator.start()
    await until_ready(api, 6)


async def test_the_api_server_is_restarted(
    api: EmulatedApi, line: Line, world: World, operator: Operator
) -> None:
    """What changes while no watch runs is found when it is back."""
    await create(api)
    await until_ready(api, 3)
    await line.cut()
    await api.change(MICROFIN_CLUSTER, "apps", "bank", {"spec": {"partitions": 6}})
    await asyncio.sleep(1)
    assert (await operator.page("/healthz"))[0] == 200, "a restart would not help it"
    await line.connect()
    await until_ready(api, 6)


async def test_a_change_that_no_watch_reported_is_found_in_time(
    api: EmulatedApi, world: World, kubeconfig: Path, operator: Operator, monkeypatch: Any
) -> None:
    """A watch that lost an event (kopf#1178)."""
    monkeypatch.setenv("MICROFIN_OPERATOR_RESYNC_SECONDS", "1")
    await operator.stop()
    await operator.start()
    await create(api)
    await until_ready(api, 3)
    api.deaf = True
    await api.change(STATEFUL_SET, "apps", "bank-worker", {"spec": {"replicas": 1}})
    await until("three workers again", lambda: workers(api)["spec"]["replicas"] == 3)


async def test_at_rest_the_api_server_is_left_alone(
    api: EmulatedApi, world: World, operator: Operator
) -> None:
    await create(api)
    await until_ready(api, 3)
    before = -1
    while before != api.asked:  # the last news may still be under way
        before = api.asked
        await asyncio.sleep(1)
    await asyncio.sleep(3)
    assert api.asked == before


async def test_it_keeps_no_traces_on_the_cluster(
    api: EmulatedApi, world: World, operator: Operator
) -> None:
    """No finalizer may keep a namespace from going, no annotation may confuse a diff."""
    await create(api)
    await until_ready(api, 3)
    item = api.item(MICROFIN_CLUSTER, "apps", "bank")
    assert item is not None
    assert not item["metadata"].get("finalizers")
    assert not item["metadata"].get("annotations")


async def test_a_deleted_cluster_is_forgotten(
    api: EmulatedApi, world: World, operator: Operator
) -> None:
    await create(api)
    await until_ready(api, 3)
    await api.remove(MICROFIN_CLUSTER, "apps", "bank")
    topic = api.item(KAFKA_TOPIC, "data", "microfin.commands")
    await until_page(operator, 'cluster="bank"', there=False)
    assert topic is not None
    assert (await operator.page("/healthz"))[0] == 200


async def test_an_operator_that_is_cut_off_says_so_and_makes_a_pass_on_return(
    api: EmulatedApi, line: Line, world: World, operator: Operator
) -> None:
    await create(api)
    await until_ready(api, 3)
    line.silence()

    async def says_so() -> bool:
        code, text = await operator.page("/readyz")
        return code == 503 and "Kubernetes API server does not answer" in text

    await until("the operator says that it is cut off", says_so)
    metrics = (await operator.page("/metrics"))[1]
    (said,) = [text for text in metrics.splitlines() if text.startswith(SILENT)]
    assert float(said.split()[-1]) > SAID_AFTER
    assert (await operator.page("/healthz"))[0] == 200, "a restart would not help"
    passes = await passes_of(operator)
    line.speak()

    async def settled() -> bool:
        ready = (await operator.page("/readyz"))[0] == 200
        return ready and await passes_of(operator) > passes

    await until("the operator is ready again and has looked", settled)


async def test_workers_that_are_cut_off_are_in_the_conditions(
    api: EmulatedApi, world: World, operator: Operator
) -> None:
    await create(api)
    await until_ready(api, 3)
    world.unreachable = ["Kafka"]

    def said() -> bool:
        status = status_of(api)
        connected = states.condition(status, "Connected")
        return connected["reason"] == "KafkaSilent" and not is_ready(status)

    await until("the conditions say that Kafka does not answer", said)
    world.unreachable = []
    await until_ready(api, 3)
    await until(
        "the conditions say that all answer",
        lambda: states.condition(status_of(api), "Connected")["status"] == "True",
    )


async def test_a_worker_that_falls_silent_is_noticed(
    api: EmulatedApi, world: World, operator: Operator
) -> None:
    """It accepts connections, and answers nothing."""
    await create(api)
    await until_ready(api, 3)
    world.workers_speak.clear()
    try:
        await until("the workers are missed", lambda: not is_ready(status_of(api)))
        said = states.condition(status_of(api), "WorkersInSync")["message"]
        assert "does not answer the operator" in said
    finally:
        world.workers_speak.set()
    await until_ready(api, 3)


async def passes_of(operator: Operator) -> float:
    lines = (await operator.page("/metrics"))[1].splitlines()
    (count,) = [it for it in lines if it.startswith("microfin_operator_reconcile_seconds_count")]
    return float(count.split()[-1])


async def test_it_serves_metrics_and_health(
    api: EmulatedApi, world: World, operator: Operator
) -> None:
    await create(api)
    await until_ready(api, 3)
    assert (await operator.page("/healthz"))[0] == 200
    assert (await operator.page("/readyz"))[0] == 200
    await until_page(operator, 'phase="Running"} 1.0')
    text = (await operator.page("/metrics"))[1]
    for line in (
        'microfin_operator_cluster_phase{cluster="bank",namespace="apps",phase="Running"} 1.0',
        'microfin_operator_cluster_partitions{cluster="bank",namespace="apps",which="topic"} 3.0',
        'microfin_operator_cluster_replicas{cluster="bank",namespace="apps",which="ready"} 3.0',
        'microfin_operator_reconciles_total{result="changed"}',
        "microfin_operator_reconcile_seconds_count",
        'microfin_operator_last_success_age_seconds{cluster="bank",namespace="apps"}',
    ):
        assert line in text
