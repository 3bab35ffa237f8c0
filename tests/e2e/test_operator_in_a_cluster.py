"""The operator on a real API server, with real workers, Kafka and PostgreSQL.

The operator runs outside the cluster. The lab plays Strimzi's Topic Operator.
"""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from e2e import data_plane, kafka_user, kubernetes_cluster
from e2e.existing_kafka import LAB_KAFKA, kafka_resource
from e2e.figures import figure
from e2e.kubernetes_cluster import apply, get, kubectl, until
from e2e.operator_process import OperatorProcess
from microfin_operator.api_silence import EVERY

AT_REST = 30  # seconds for which requests are counted

pytestmark = pytest.mark.timeout(300)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def namespace() -> AsyncIterator[str]:
    kubectl("apply", "--server-side", "-f", str(kubernetes_cluster.CUSTOM_RESOURCE))
    kubectl("wait", "--for=condition=Established", "crd/microfinclusters.microfin.io")
    async with kubernetes_cluster.own_namespace() as name:
        await data_plane.start(name)
        await data_plane.make_ledger(name, "bank")
        await data_plane.make_ledger(name, "plain")
        with kafka_user.user_of(name):
            yield name


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def operator(namespace: str, tmp_path_factory: Any) -> AsyncIterator[OperatorProcess]:
    log: Path = tmp_path_factory.mktemp("operator") / "log"
    process = OperatorProcess(namespace, log)
    await process.start()
    yield process
    process.stop()
    print(await asyncio.to_thread(log.read_text, encoding="utf-8"))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def bank(namespace: str, operator: OperatorProcess) -> AsyncIterator[str]:
    """A cluster with three workers on a Kafka of Strimzi."""
    topic = kafka_user.topic_of(namespace, "bank")
    began = time.monotonic()
    apply(kafka_resource(LAB_KAFKA, namespace))
    apply(
        cluster(
            namespace,
            "bank",
            {"name": topic, "strimzi": {"cluster": "lab", "namespace": "kafka"}, "replicas": 1},
        )
    )
    kubectl("-n", namespace, "wait", "--for=condition=Ready", "mfc/bank", "--timeout=120s")
    figure(f"Ready with 3 workers after {time.monotonic() - began:.1f} s")
    yield topic
    kubectl("-n", namespace, "delete", "mfc/bank", "--wait=false")
    kubectl("-n", "kafka", "delete", "kafkatopic", topic, "--wait=false")


def cluster(namespace: str, name: str, topic: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "microfin.io/v1alpha1",
        "kind": "MicrofinCluster",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "topic": topic,
            "worker": {
                "image": data_plane.WORKER_IMAGE,
                "envFrom": [{"secretRef": {"name": name}}],
                "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}},
                "podTemplate": kafka_user.worker_template(),
            },
        },
    }


def active(namespace: str, partitions: int, name: str = "bank") -> bool:
    """Whether everything is as desired, for the current spec."""
    item = get(f"mfc/{name}", namespace)
    status = item.get("status", {})
    ready: dict[str, Any] = next(
        (it for it in status.get("conditions", ()) if it["type"] == "Ready"), {}
    )
    return (
        ready.get("status") == "True"
        and ready["observedGeneration"] == item["metadata"]["generation"]
        and status["partitions"] == dict.fromkeys(("topic", "active", "desired"), partitions)
    )


def reasons(namespace: str) -> set[str]:
    return {event["reason"] for event in get("events", namespace)["items"]}


async def test_a_cluster_becomes_ready(namespace: str, bank: str) -> None:
    item = get("mfc/bank", namespace)
    assert item["status"]["partitions"] == {"topic": 3, "active": 3, "desired": 3}
    assert item["status"]["readyReplicas"] == 3
    assert not item["metadata"].get("finalizers")
    table = kubectl("-n", namespace, "get", "mfc")
    assert "Running" in table


async def test_at_rest_it_hardly_asks_the_api_server(
    namespace: str, bank: str, operator: OperatorProcess
) -> None:
    await asyncio.sleep(3)
    before = requests(operator)
    await asyncio.sleep(AT_REST)
    probes = AT_REST / EVERY + 1  # for all banks together: whether the API server answers
    one_pass = 10  # a worker on a busy machine may say that it is cut off for a moment
    assert requests(operator) - before <= probes + one_pass


def requests(operator: OperatorProcess) -> int:
    page = operator.page("/metrics")
    printed = re.findall(r"^microfin_operator_api_requests_total.* (\S+)$", page, re.MULTILINE)
    return int(sum(map(float, printed)))


async def test_workers_scaled_by_hand_are_set_back(namespace: str, bank: str) -> None:
    kubectl("-n", namespace, "scale", "statefulset/bank-worker", "--replicas=1")
    await until(
        "three workers again",
        lambda: get("statefulset/bank-worker", namespace)["spec"]["replicas"] == 3,
    )
    await until("Ready", lambda: active(namespace, 3))
    assert "ReplicasRestored" in reasons(namespace)


async def test_a_worker_deleted_by_force_is_replaced(namespace: str, bank: str) -> None:
    """For a moment there are two of one ordinal; the claim decides who may commit."""
    before = data_plane.claims(namespace, "bank")[1]
    kubectl("-n", namespace, "delete", "pod", "bank-worker-1", "--force", "--grace-period=0")
    took = await until("a new claim", lambda: data_plane.claims(namespace, "bank")[1] > before)
    figure(f"claimed again {took:.1f} s after the forced deletion")
    await until("Ready", lambda: active(namespace, 3))


async def test_a_new_image_goes_round_partition_by_partition(namespace: str, bank: str) -> None:
    before = data_plane.claims(namespace, "bank")
    patch_image(namespace, data_plane.NEXT_WORKER_IMAGE)
    least = 3

    def rolled() -> bool:
        nonlocal least
        status = get("statefulset/bank-worker", namespace)["status"]
        least = min(least, status.get("readyReplicas", 0))
        return active(namespace, 3) and status.get("updatedReplicas") == 3

    took = await until("all workers of the new image", rolled, patience=180)
    figure(f"rolled three workers in {took:.1f} s")
    assert least >= 2, "more than one partition was without its worker"
    after = data_plane.claims(namespace, "bank")
    assert all(after[it] > before[it] for it in range(3)), "the old workers were not fenced"


async def test_a_broken_image_stops_at_one_partition_and_goes_back(
    namespace: str, bank: str
) -> None:
    """A StatefulSet that starts its pods in order would stay broken (kubernetes#67250)."""
    patch_image(namespace, "ghcr.io/microfin/worker:there-is-none")

    def degraded() -> bool:
        return bool(get("mfc/bank", namespace)["status"]["phase"] == "Degraded")

    await until("Degraded", degraded)
    status = get("mfc/bank", namespace)["status"]
    message = next(it for it in status["conditions"] if it["type"] == "Degraded")["message"]
    assert re.search(r"bank-worker-2: (ErrImagePull|ImagePullBackOff)", message)
    assert status["readyReplicas"] == 2
    patch_image(namespace, data_plane.NEXT_WORKER_IMAGE)
    await until("Ready", lambda: active(namespace, 3))


def patch_image(namespace: str, image: str) -> None:
    patch = json.dumps({"spec": {"worker": {"image": image}}})
    kubectl("-n", namespace, "patch", "mfc/bank", "--type=merge", "-p", patch)


async def test_scale_grows_while_the_operator_is_killed(
    namespace: str, bank: str, operator: OperatorProcess
) -> None:
    kubectl("-n", namespace, "scale", "mfc/bank", "--replicas=6")
    began = time.monotonic()
    for _ in range(3):
        await asyncio.sleep(1.5)
        operator.kill()
        await operator.start()
    await until("six partitions", lambda: active(namespace, 6))
    figure(f"grown from 3 to 6 in {time.monotonic() - began:.1f} s, the operator killed 3 times")
    assert data_plane.routing(namespace, "bank") == (2, 6)
    assert get("statefulset/bank-worker", namespace)["spec"]["replicas"] == 6


async def test_a_topic_grown_by_hand_is_adopted(namespace: str, bank: str) -> None:
    began = time.monotonic()
    patch = json.dumps({"spec": {"partitions": 7}})
    kubectl("-n", "kafka", "patch", "kafkatopic", bank, "--type=merge", "-p", patch)
    await until("seven partitions", lambda: active(namespace, 7))
    figure(f"adopted and grown from 6 to 7 in {time.monotonic() - began:.1f} s")
    conditions = get("mfc/bank", namespace)["status"]["conditions"]
    assert next(it for it in conditions if it["type"] == "TopicInSync")["reason"] == "Adopted"
    assert data_plane.routing(namespace, "bank") == (3, 7)


async def test_partitions_do_not_shrink(namespace: str, bank: str) -> None:
    printed = kubectl("-n", namespace, "scale", "mfc/bank", "--replicas=3", check=False)
    assert "partitions never decrease" in printed


async def test_without_strimzi_jobs_make_and_grow_the_topic(
    namespace: str, operator: OperatorProcess
) -> None:
    """As where Kafka is somebody else's: no KafkaTopic, the workers' own settings."""
    topic = {
        "name": kafka_user.topic_of(namespace, "plain"),
        "bootstrap": {"servers": LAB_KAFKA.bootstrap},
        "replicas": 1,
    }
    apply(cluster(namespace, "plain", topic))
    kubectl("-n", namespace, "wait", "--for=condition=Ready", "mfc/plain", "--timeout=120s")
    kubectl("-n", namespace, "scale", "mfc/plain", "--replicas=5")
    took = await until("five partitions", lambda: active(namespace, 5, "plain"))
    figure(f"without Strimzi grown from 3 to 5 in {took:.1f} s")
    assert data_plane.routing(namespace, "plain") == (2, 5)
    # Somebody else grows it, which only the workers can report.
    by_hand = ("microfin", "topic", "grow", "--partitions", "6")
    kubectl("-n", namespace, "exec", "plain-worker-0", "--", *by_hand)
    took = await until("six partitions", lambda: active(namespace, 6, "plain"))
    figure(f"grown in Kafka itself to 6, adopted in {took:.1f} s")
    kubectl("-n", namespace, "delete", "mfc/plain", "--wait=false")


async def test_the_memory_of_the_operator(
    namespace: str, bank: str, operator: OperatorProcess
) -> None:
    figure(f"operator memory {operator.memory() / 2**20:.0f} MiB")
    assert operator.memory() < 120 * 2**20
