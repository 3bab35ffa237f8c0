"""What an upgrade of microfin-data does to a Kafka that Strimzi runs; needs helm and Strimzi's
definitions. A stand-in makes what Strimzi makes, by the same names.
"""

import json
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio

from e2e import kubernetes_cluster
from e2e.data_chart import CHART, PRODUCTION
from e2e.helms import HELMS
from e2e.kubernetes_cluster import get, kubectl
from e2e.release_before import charts_before, why_no_charts

RELEASE: Final = "microfin-data"
KAFKA_ONLY: Final = (
    "postgres.enabled=false,redis.enabled=false,metrics.podMonitors.enabled=false,"
    "metrics.rules.enabled=false,metrics.dashboards.enabled=false"
)
KINDS: Final = "kafkas,kafkanodepools,kafkausers,secrets,networkpolicies"


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if reason := why_no_charts():
        pytest.skip(reason)
    return charts_before(tmp_path_factory.mktemp("before")) / "microfin-data"


@pytest_asyncio.fixture(loop_scope="session")
async def namespace() -> AsyncIterator[str]:
    async with kubernetes_cluster.own_namespace() as name:
        yield name


def deploy(helm: str, namespace: str, chart: Path, *values: str) -> str:
    """Install or upgrade the production values of a chart; return what helm refused."""
    place = ("upgrade", "--install", RELEASE, str(chart), "--namespace", namespace)
    own = ("--values", str(chart / PRODUCTION.name), "--set", KAFKA_ONLY)
    sets = [part for value in values for part in ("--set", value)]
    done = subprocess.run([helm, *place, *own, *sets], capture_output=True, text=True, check=False)
    return done.stderr if done.returncode else ""


def act_as_strimzi(namespace: str) -> None:
    """Make and overwrite the users' Secrets and the policies, as Strimzi does on every round."""
    kafka = get("kafka/microfin", namespace)
    items = [_policy(kafka, "microfin-network-policy-kafka", "microfin-kafka")]
    items.append(_policy(kafka, "microfin-entity-operator", "microfin-entity-operator"))
    items += [_secret(it) for it in get("kafkausers", namespace)["items"]]
    kubectl(
        *("-n", namespace, "apply", "--server-side", "--force-conflicts"),
        *("--field-manager=strimzi-cluster-operator", "-f", "-"),
        stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}),
    )


def _owned(owner: dict[str, Any], name: str, by: str) -> dict[str, Any]:
    reference = {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": False,
    }
    labels = {"app.kubernetes.io/managed-by": by, "strimzi.io/cluster": "microfin"}
    return {"name": name, "labels": labels, "ownerReferences": [reference]}


def _policy(kafka: dict[str, Any], name: str, pods: str) -> dict[str, Any]:
    selector = {"strimzi.io/cluster": "microfin", "strimzi.io/name": pods}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _owned(kafka, name, "strimzi-cluster-operator"),
        "spec": {
            "podSelector": {"matchLabels": selector},
            "policyTypes": ["Ingress"],
            "ingress": [{"ports": [{"port": 8081, "protocol": "TCP"}]}],
        },
    }


def _secret(user: dict[str, Any]) -> dict[str, Any]:
    name = user["metadata"]["name"]
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": _owned(user, name, "strimzi-user-operator"),
        "stringData": {"user.crt": f"certificate of {name}", "user.key": "its key"},
    }


def found(namespace: str) -> dict[str, dict[str, Any]]:
    """Return what is there, by kind and name."""
    return {
        f"{it['kind']}/{it['metadata']['name']}": it
        for it in get(KINDS, namespace)["items"]
        if it.get("type") != "helm.sh/release.v1"
    }


def uids(items: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {name: it["metadata"]["uid"] for name, it in items.items()}


@pytest.mark.parametrize("helm", HELMS)
def test_nothing_of_kafka_is_replaced(namespace: str, before: Path, helm: str) -> None:
    assert deploy(helm, namespace, before) == ""
    act_as_strimzi(namespace)
    then = found(namespace)
    pools = {name for name in then if name.startswith("KafkaNodePool/")}
    assert pools == {"KafkaNodePool/controller", "KafkaNodePool/broker"}

    # Pools of the release before are known as the bank's own.
    for value in ("kafka.brokers.name=main", "kafka.controllers.replicas=5"):
        assert "this would lose data" in deploy(helm, namespace, CHART, value)
    assert uids(found(namespace)) == uids(then)

    # Every second upgrade failed once: Strimzi works in between.
    for _ in range(2):
        assert deploy(helm, namespace, CHART) == ""
        act_as_strimzi(namespace)
    now = found(namespace)
    gone = uids(then).items() - uids(now).items()
    assert {name for name, _ in gone} == {"NetworkPolicy/microfin-entity-operator"}
    assert now.keys() - then.keys() == {
        "KafkaUser/microfin-trim",
        "Secret/microfin-trim",
        "NetworkPolicy/microfin-kafka-entities",
    }
    for pool in pools:
        assert now[pool]["spec"] == then[pool]["spec"]
        assert now[pool]["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    for name in ("KafkaUser/microfin-worker", "KafkaUser/microfin-api", "KafkaUser/microfin-audit"):
        assert now[name]["spec"] == then[name]["spec"]
    assert _rights(now["KafkaUser/microfin-administrator"]) == {"Describe", "Read", "Write"}
    assert "Delete" in _rights(now["KafkaUser/microfin-trim"])


def _rights(user: dict[str, Any]) -> set[str]:
    acls = user["spec"]["authorization"]["acls"]
    return {right for it in acls if it["resource"]["type"] == "topic" for right in it["operations"]}
