"""The CustomResourceDefinition in a real API server: every rule by a case that passes and one that
is refused, with words that say what to do."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from e2e import kubernetes_cluster, specs
from e2e.kubernetes_cluster import kubectl, refusal
from microfin_operator.kinds import MICROFIN_CLUSTER
from microfin_operator.kubernetes_api import KubernetesApi


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def namespace() -> AsyncIterator[str]:
    kubectl("apply", "--server-side", "-f", str(kubernetes_cluster.CUSTOM_RESOURCE))
    kubectl("wait", "--for=condition=Established", "crd/microfinclusters.microfin.io")
    async with kubernetes_cluster.own_namespace() as name:
        yield name


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def api() -> AsyncIterator[KubernetesApi]:
    async with kubernetes_cluster.api_server() as client:
        yield client


@pytest.mark.parametrize("case", specs.ACCEPTED)
async def test_a_right_spec_is_taken(api: KubernetesApi, namespace: str, case: str) -> None:
    path, value = specs.ACCEPTED[case]
    item = specs.valid(namespace)
    if path == "spec":
        value = {**item["spec"], **value}
    item = specs.with_change(item, path, value)
    assert await refusal(api, "POST", MICROFIN_CLUSTER, item) == ""


@pytest.mark.parametrize("case", specs.REFUSED)
async def test_a_wrong_spec_is_refused(api: KubernetesApi, namespace: str, case: str) -> None:
    path, value, words = specs.REFUSED[case]
    item = specs.with_change(specs.valid(namespace), path, value)
    assert words in await refusal(api, "POST", MICROFIN_CLUSTER, item)


@pytest.mark.parametrize("name", specs.REFUSED_NAMES)
async def test_a_wrong_name_is_refused(api: KubernetesApi, namespace: str, name: str) -> None:
    words = specs.REFUSED_NAMES[name]
    assert words in await refusal(api, "POST", MICROFIN_CLUSTER, specs.valid(namespace, name))


async def test_the_longest_name_is_taken(api: KubernetesApi, namespace: str) -> None:
    item = specs.valid(namespace, "a" * 40)
    assert await refusal(api, "POST", MICROFIN_CLUSTER, item) == ""


async def change_refusal(api: KubernetesApi, namespace: str, path: str, value: Any) -> str:
    patch: dict[str, Any] = {"metadata": {"name": "bank", "namespace": namespace}}
    return await refusal(api, "PATCH", MICROFIN_CLUSTER, specs.with_change(patch, path, value))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stored(namespace: str) -> AsyncIterator[None]:
    kubernetes_cluster.apply(specs.valid(namespace), bootstrap(namespace))
    yield
    kubectl("-n", namespace, "delete", "mfc", "--all")


def bootstrap(namespace: str) -> dict[str, Any]:
    item = specs.valid(namespace, "elsewhere")
    return specs.with_change(item, "spec/topic", specs.BOOTSTRAP)


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize("case", specs.ACCEPTED_CHANGES)
async def test_a_right_change_is_taken(api: KubernetesApi, namespace: str, case: str) -> None:
    assert await change_refusal(api, namespace, *specs.ACCEPTED_CHANGES[case]) == ""


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize("case", specs.REFUSED_CHANGES)
async def test_a_wrong_change_is_refused(api: KubernetesApi, namespace: str, case: str) -> None:
    path, value, words = specs.REFUSED_CHANGES[case]
    assert words in await change_refusal(api, namespace, path, value)


@pytest.mark.usefixtures("stored")
async def test_replicas_of_a_topic_without_strimzi_stay(api: KubernetesApi, namespace: str) -> None:
    metadata = {"name": "elsewhere", "namespace": namespace}
    patch = {"metadata": metadata, "spec": {"topic": {"replicas": 1}}}
    words = await refusal(api, "PATCH", MICROFIN_CLUSTER, patch)
    assert "reassign the partitions with Kafka's own tools" in words
    servers = {"servers": "kafka-2:9092"}
    patch = {"metadata": metadata, "spec": {"topic": {"bootstrap": servers}}}
    assert await refusal(api, "PATCH", MICROFIN_CLUSTER, patch) == ""


@pytest.mark.usefixtures("stored")
def test_defaults_are_filled_in(namespace: str) -> None:
    item = specs.valid(namespace, "least")
    spec = {
        "topic": {"strimzi": {"cluster": "kafka", "namespace": "data"}},
        "worker": {"image": "w:1", "envFrom": [{"secretRef": {"name": "s"}}]},
    }
    kubernetes_cluster.apply({**item, "spec": spec})
    found = kubernetes_cluster.get("mfc/least", namespace)["spec"]
    assert (found["partitions"], found["shards"], found["paused"]) == (3, 1, False)
    assert (found["topic"]["name"], found["topic"]["replicas"]) == ("microfin.commands", 3)
    assert found["worker"]["terminationGracePeriodSeconds"] == 30


@pytest.mark.usefixtures("stored")
def test_scale_grows_and_never_shrinks(namespace: str) -> None:
    kubectl("-n", namespace, "scale", "mfc/elsewhere", "--replicas=8")
    assert kubernetes_cluster.get("mfc/elsewhere", namespace)["spec"]["partitions"] == 8
    printed = kubectl("-n", namespace, "scale", "mfc/elsewhere", "--replicas=6", check=False)
    assert "partitions never decrease, because accounts live on all of them" in printed


@pytest.mark.usefixtures("stored")
def test_scale_shows_replicas_and_selector(namespace: str) -> None:
    status = {"status": {"replicas": 6, "selector": "microfin.io/cluster=bank", "lagRecords": 0}}
    kubectl(
        "-n", namespace, "patch", "mfc/bank", "--subresource=status", "--type=merge",
        "-p", json.dumps(status),
    )  # fmt: skip
    path = f"/apis/microfin.io/v1alpha1/namespaces/{namespace}/microfinclusters/bank/scale"
    scale = json.loads(kubectl("get", "--raw", path))
    assert scale["spec"]["replicas"] == 6
    assert scale["status"] == {"replicas": 6, "selector": "microfin.io/cluster=bank"}


@pytest.mark.usefixtures("stored")
def test_conditions_can_be_waited_for(namespace: str) -> None:
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "AllInSync",
        "message": "",
        "observedGeneration": 1,
        "lastTransitionTime": "2026-11-23T12:00:00Z",
    }
    patch = json.dumps({"status": {"conditions": [ready], "phase": "Running"}})
    kubectl(
        "-n", namespace, "patch", "mfc/bank", "--subresource=status", "--type=merge", "-p", patch
    )
    kubectl("-n", namespace, "wait", "--for=condition=Ready", "mfc/bank", "--timeout=5s")
    table = kubectl("-n", namespace, "get", "microfin")
    assert table.split("\n", maxsplit=1)[0].split() == [
        "NAME", "PARTITIONS", "ACTIVE", "WORKERS", "READY", "LAG", "PHASE", "AGE",
    ]  # fmt: skip
    assert "Running" in table


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("mfc", "one worker for each"),
        ("mfc.spec.partitions", "kubectl scale"),
        ("mfc.spec.topic.strimzi", "makes and grows the KafkaTopic"),
        ("mfc.spec.worker.envFrom", "The operator never reads them"),
        ("mfc.status.conditions", "TopicInSync"),
    ],
)
def test_explain_teaches(namespace: str, field: str, words: str) -> None:
    assert namespace
    assert words in " ".join(kubectl("explain", field).split())
