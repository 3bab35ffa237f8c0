"""What each Kafka user of the charts may do on the cluster, tried from a pod with its certificate.

The users are those of the chart microfin-data for a Kafka of another namespace, and the chart
microfin copies their Secrets. Each tries everything with a topic of its own bank's name.
"""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio

from e2e.data_plane import WORKER_IMAGE
from e2e.existing_kafka import existing_kafka
from e2e.figures import figure
from e2e.kubernetes_bank import TAG
from e2e.kubernetes_cluster import ROOT, apply, kubectl, own_namespace, until
from e2e.rendered_chart import Item, objects, template
from microfin_deploy.platform import ExistingKafka, Platform
from microfin_deploy.releases import Wanted, application_values, data_values
from support.kafka_users import acts_of, users

pytestmark = pytest.mark.timeout(300)

ACTS: Final = (ROOT / "tests/support/kafka_acts.py").read_text(encoding="utf-8")
COPIES: Final = "deployment/microfin-kafka-secrets"
# What the lab's own scripts use is not for pods.
KNOCK: Final = """
import socket, sys
for port in (9090, 9092):
    try:
        socket.create_connection((sys.argv[1], port), 3).close()
        print(port)
    except OSError:
        pass
"""


@pytest.fixture(scope="module")
def kafka() -> ExistingKafka:
    found = existing_kafka()
    if found is None:
        pytest.skip("Strimzi makes a Kafka for each bank here; tests/tls tries its users' rights.")
    return found


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def namespace(
    kafka: ExistingKafka, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[str]:
    """One with copies of the users' Secrets, and the topic."""
    folder = tmp_path_factory.mktemp("values")
    async with own_namespace() as name:
        wanted = Wanted(name, "", "dev", TAG, topic=f"{name}.commands")
        platform = Platform(kafka, ingress_class="")
        data, bank = data_values(wanted, platform), application_values(wanted, platform)
        items = [
            *rendered("microfin-data", "kafka-users", name, data, folder),
            *rendered("microfin", "kafka-secrets", name, bank, folder),
            topic(kafka, wanted.topic),
        ]
        apply(*items)
        try:
            made = ("wait", "--for=condition=Ready", f"kafkatopic/{wanted.topic}", "--timeout=60s")
            kubectl("-n", kafka.namespace, *made)
            kubectl("-n", name, "rollout", "status", COPIES, "--timeout=120s")
            yield name
        finally:
            theirs = [it for it in items if it["metadata"]["namespace"] == kafka.namespace]
            listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": theirs})
            kubectl("delete", "--ignore-not-found", "--wait=false", "-f", "-", stdin=listed)


def rendered(
    chart: str, part: str, namespace: str, values: dict[str, Any], folder: Path
) -> list[Item]:
    """Return the objects of one template of a chart."""
    file = folder / f"{chart}.json"
    file.write_text(json.dumps(values), encoding="utf-8")
    only = ("--values", str(file), "--show-only", f"templates/{part}.yaml")
    return objects(template("microfin", ROOT / "charts" / chart, namespace, *only))


def topic(kafka: ExistingKafka, name: str) -> Item:
    return {
        "apiVersion": "kafka.strimzi.io/v1",
        "kind": "KafkaTopic",
        "metadata": {
            "name": name,
            "namespace": kafka.namespace,
            "labels": {"strimzi.io/cluster": kafka.name},
        },
        "spec": {"partitions": 1, "replicas": 1},
    }


def pod(namespace: str, kafka: ExistingKafka) -> Item:
    """Return a pod that has the certificates of all users, and tries what each may do."""
    names = [user.name for user in users()]
    sources: list[Item] = [
        {
            "secret": {
                "name": f"microfin-{user}",
                "items": [
                    {"key": key, "path": f"{user}/{key}"} for key in ("user.crt", "user.key")
                ],
            }
        }
        for user in names
    ]
    for user in names:
        authority = [{"key": "ca.crt", "path": f"{user}/ca.crt"}]
        sources.append({"secret": {"name": "microfin-cluster-ca-cert", "items": authority}})
    container = {
        "name": "users",
        "image": WORKER_IMAGE,
        "command": ["python", "-c", ACTS, f"{namespace}.commands"],
        "args": [f"/users/{user}" for user in names],
        "env": [{"name": "MICROFIN_KAFKA", "value": kafka.bootstrap}],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "users", "mountPath": "/users", "readOnly": True}],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "users", "namespace": namespace},
        "spec": {
            "restartPolicy": "Never",
            "securityContext": {
                "runAsNonRoot": True,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
            "volumes": [{"name": "users", "projected": {"sources": sources}}],
        },
    }


async def test_each_user_may_do_its_own_work_and_nothing_else(
    namespace: str, kafka: ExistingKafka
) -> None:
    """No user grows or changes a topic: the operator does, through Strimzi."""
    apply(pod(namespace, kafka))
    printed = ""

    def has_ended() -> bool:
        nonlocal printed
        phase = ("get", "pod/users", "-o", "jsonpath={.status.phase}")
        if kubectl("-n", namespace, *phase) not in ("Succeeded", "Failed"):
            return False
        printed = kubectl("-n", namespace, "logs", "users")
        return True

    took = await until("all attempts", has_ended, 180)
    may = json.loads(printed.splitlines()[-1])
    assert {user: set(acts) for user, acts in may.items()} == acts_of(users()), printed
    figure(f"{len(may)} Kafka users tried what they may in {took:.1f} s")


async def test_pods_reach_no_listener_without_tls(namespace: str, kafka: ExistingKafka) -> None:
    (name, *_) = kafka.bootstrap.split(":")
    inside = ("-n", namespace, "exec", COPIES, "--", "python", "-c", KNOCK)
    addresses = kubectl(
        *("-n", kafka.namespace, "get", "pods", "-l", f"strimzi.io/cluster={kafka.name}"),
        *("-o", "jsonpath={.items[*].status.podIP}"),
    ).split()
    assert addresses
    for address in (name, *addresses):
        assert kubectl(*inside, address) == "", address
