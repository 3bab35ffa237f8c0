"""`make undeploy` where topics have Strimzi's finalizer; needs helm and Strimzi's definitions.

A stand-in does what Strimzi's Topic Operator does with a deleted KafkaTopic. Like its pod, it works
only while the Kafka exists.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from e2e import kubernetes_cluster
from e2e.data_chart import CHART, DEV
from e2e.kubernetes_cluster import apply, kubectl
from microfin_deploy.commands import exists, helm, listed
from microfin_deploy.removal import remove_bank

pytestmark = pytest.mark.timeout(300)

KAFKA_ONLY = ("postgres.enabled=false", "redis.enabled=false")
FINALIZER = "strimzi.io/topic-operator"
KAFKA = "kafkas.kafka.strimzi.io/microfin"
TOPICS = "kafkatopics.kafka.strimzi.io"


@pytest_asyncio.fixture(loop_scope="session")
async def namespace() -> AsyncIterator[str]:
    """One with the data chart's Kafka, which nobody runs, and the bank's topic."""
    async with kubernetes_cluster.own_namespace() as name:
        sets = [part for value in KAFKA_ONLY for part in ("--set", value)]
        place = ("upgrade", "--install", "microfin-data", str(CHART), "--namespace", name)
        helm(*place, "--values", str(DEV), *sets)
        apply(topic(name))
        try:
            yield name
        finally:
            for it in listed(TOPICS, "-n", name):
                remove_finalizers(it)


def topic(namespace: str) -> dict[str, Any]:
    return {
        "apiVersion": "kafka.strimzi.io/v1",
        "kind": "KafkaTopic",
        "metadata": {
            "name": f"{namespace}.commands",
            "namespace": namespace,
            "labels": {"strimzi.io/cluster": "microfin"},
            "annotations": {"microfin.io/owned-by": f"{namespace}/microfin"},
            "finalizers": [FINALIZER],
        },
        "spec": {"partitions": 1, "replicas": 1},
    }


def remove_finalizers(it: dict[str, Any]) -> None:
    metadata = it["metadata"]
    patch = json.dumps({"metadata": {"finalizers": []}})
    what = (f"{TOPICS}/{metadata['name']}", "--type=merge", "-p", patch)
    kubectl("-n", metadata["namespace"], "patch", *what, check=False)


@contextlib.asynccontextmanager
async def topic_operator(namespace: str) -> AsyncIterator[None]:
    """Run the stand-in inside the block."""
    working = asyncio.create_task(_topic_operator(namespace))
    try:
        yield
    finally:
        working.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await working


async def _topic_operator(namespace: str) -> None:
    while True:
        await asyncio.to_thread(_act_on_topics, namespace)
        await asyncio.sleep(0.3)


def _act_on_topics(namespace: str) -> None:
    if not exists("-n", namespace, KAFKA):
        return
    for it in listed(TOPICS, "-n", namespace):
        if "deletionTimestamp" in it["metadata"]:
            remove_finalizers(it)


async def removed(namespace: str, patience: float) -> list[str]:
    """Remove the bank; return what was said."""
    said: list[str] = []
    await asyncio.to_thread(remove_bank, namespace, patience, said.append)
    assert not exists(f"namespace/{namespace}")
    return said


async def test_the_topic_goes_while_the_topic_operator_runs(namespace: str) -> None:
    async with topic_operator(namespace):
        said = await removed(namespace, patience=120)
    assert not any("Removing its finalizer" in line for line in said), said
    first = next(n for n, line in enumerate(said) if line.startswith(f"deleting {TOPICS}/"))
    assert said[first + 1].startswith("uninstalling microfin-data")


async def test_without_the_topic_operator_the_finalizer_is_removed_and_it_is_said(
    namespace: str,
) -> None:
    said = await removed(namespace, patience=30)
    assert any("check the pod whose name ends with -entity-operator" in line for line in said), said


async def test_a_topic_whose_kafka_is_gone_holds_nothing(namespace: str) -> None:
    kubectl("-n", namespace, "delete", KAFKA)
    said = await removed(namespace, patience=120)
    assert not any("is not gone" in line for line in said), said
