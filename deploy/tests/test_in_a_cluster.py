"""What `make deploy` finds in a cluster, and how `make undeploy` empties it.

`kubectl` and `helm` are stand-ins, whose objects have the names, labels and finalizers of the
vendors' charts and plain manifests. tests/e2e/test_undeploy.py does the same with an API server.
"""

import importlib.util
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from microfin_deploy.__main__ import application
from microfin_deploy.commands import ROOT, DeployError, exists, run
from microfin_deploy.platform import ExistingKafka, inspect_platform
from source.shell_blocks import shell_blocks

PROGRAM = Path(__file__).with_name("stand_in.py")
_found = importlib.util.spec_from_file_location("stand_in", PROGRAM)
assert _found is not None
assert _found.loader is not None
stand_in = importlib.util.module_from_spec(_found)
_found.loader.exec_module(stand_in)
item = stand_in.item

Item = dict[str, Any]
BANK = "bank"
TOPIC = "microfin.commands"


class StoredCluster:
    """The stand-ins' cluster."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.store([])

    def store(
        self,
        items: list[Item],
        releases: dict[str, list[tuple[str, str, str]]] | None = None,
        broken: tuple[str, ...] = (),
    ) -> None:
        kept = {"items": items, "releases": releases or {}, "broken": broken}
        self.file.write_text(json.dumps(kept), encoding="utf-8")

    def left(self) -> set[tuple[str, str]]:
        items = json.loads(self.file.read_text(encoding="utf-8"))["items"]
        return {(it["kind"], it["metadata"]["name"]) for it in items}


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StoredCluster:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("kubectl", "helm"):
        text = f"#!{sys.executable}\n{PROGRAM.read_text(encoding='utf-8')}"
        programs.joinpath(name).write_text(text, encoding="utf-8")
        programs.joinpath(name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    file = tmp_path / "cluster.json"
    monkeypatch.setenv("STAND_IN_CLUSTER", str(file))
    return StoredCluster(file)


def definition(name: str) -> Item:
    return dict(item("CustomResourceDefinition", name))


def deployment(name: str, namespace: str, labels: dict[str, str], pods: dict[str, str]) -> Item:
    made: Item = item("Deployment", name, namespace, labels=labels)
    return made | {"spec": {"template": {"metadata": {"labels": pods}}}}


STRIMZIS_PODS = {"name": "strimzi-cluster-operator", "strimzi.io/kind": "cluster-operator"}
STRIMZI_CHART = deployment(
    "strimzi-cluster-operator",
    "strimzi",
    {"app": "strimzi", "chart": "strimzi-kafka-operator-1.2.0", "component": "deployment",
     "release": "strimzi", "heritage": "Helm"},
    STRIMZIS_PODS,
)  # fmt: skip
STRIMZI_PLAIN = deployment("strimzi-cluster-operator", "kafka", {"app": "strimzi"}, STRIMZIS_PODS)
CNPG_NAME = {"app.kubernetes.io/name": "cloudnative-pg"}
CNPG_CHART = deployment(
    "cnpg-cloudnative-pg",
    "cnpg-system",
    {**CNPG_NAME, "app.kubernetes.io/instance": "cnpg", "app.kubernetes.io/managed-by": "Helm",
     "helm.sh/chart": "cloudnative-pg-0.29.0"},
    {**CNPG_NAME, "app.kubernetes.io/instance": "cnpg"},
)  # fmt: skip
CNPG_PLAIN = deployment("cnpg-controller-manager", "cnpg-system", CNPG_NAME, CNPG_NAME)
DEFINITIONS = [
    definition(f"{kind}.kafka.strimzi.io")
    for kind in ("kafkas", "kafkanodepools", "kafkatopics", "kafkausers")
] + [definition(f"{kind}.postgresql.cnpg.io") for kind in ("clusters", "poolers")]
MICROFIN = definition("microfinclusters.microfin.io")


@pytest.mark.parametrize("strimzi", [STRIMZI_CHART, STRIMZI_PLAIN], ids=["chart", "plain"])
@pytest.mark.parametrize("cnpg", [CNPG_CHART, CNPG_PLAIN], ids=["chart", "plain"])
def test_the_vendors_operators_are_found(cluster: StoredCluster, strimzi: Item, cnpg: Item) -> None:
    cluster.store([*DEFINITIONS, strimzi, cnpg])
    said: list[str] = []
    assert inspect_platform(said.append).strimzi
    assert [line.partition(",")[0] for line in said] == [
        "waiting for CloudNativePG's operator",
        "waiting for Strimzi's operator",
    ]


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([STRIMZI_CHART, CNPG_CHART], "CloudNativePG is not in this cluster"),
        ([*DEFINITIONS[4:], CNPG_CHART], "Strimzi is not in this cluster"),
        ([*DEFINITIONS, CNPG_CHART], "no Deployment whose pods have the label strimzi.io/kind="),
    ],
)
def test_what_is_missing_is_named(cluster: StoredCluster, items: list[Item], message: str) -> None:
    cluster.store(items)
    with pytest.raises(DeployError, match=message):
        inspect_platform(lambda _: None)


def test_strimzis_operator_is_not_needed_for_an_existing_kafka(cluster: StoredCluster) -> None:
    cluster.store([*DEFINITIONS, CNPG_PLAIN])
    assert not inspect_platform(lambda _: None, ExistingKafka("kafka", "main")).strimzi


@pytest.mark.parametrize("strimzi", [STRIMZI_CHART, STRIMZI_PLAIN], ids=["chart", "plain"])
@pytest.mark.parametrize("cnpg", [CNPG_CHART, CNPG_PLAIN], ids=["chart", "plain"])
def test_the_production_guide_finds_the_operators(
    cluster: StoredCluster, strimzi: Item, cnpg: Item
) -> None:
    cluster.store([*DEFINITIONS, strimzi, cnpg])
    blocks = "".join(it.commands for it in shell_blocks(ROOT / "docs/guide/production.md"))
    commands = re.findall(r"^kubectl get deployments -A -l .*$", blocks, re.MULTILINE)
    found = [run("sh", "-c", f"{command} -o name").split() for command in commands]
    assert found == [[f"deployment/{it['metadata']['name']}"] for it in (cnpg, strimzi)]


def test_the_clusters_default_ingress_class_is_used(cluster: StoredCluster) -> None:
    default = {"ingressclass.kubernetes.io/is-default-class": "true"}
    classes = [item("IngressClass", "alb"), item("IngressClass", "nginx", annotations=default)]
    cluster.store([*DEFINITIONS, STRIMZI_CHART, CNPG_CHART, *classes])
    assert inspect_platform(lambda _: None).ingress_class == "nginx"
    cluster.store([*DEFINITIONS, STRIMZI_CHART, CNPG_CHART, classes[0]])
    assert inspect_platform(lambda _: None).ingress_class == "alb"


def test_the_prometheus_operator_is_known_by_its_definitions(cluster: StoredCluster) -> None:
    kinds = ("podmonitors", "servicemonitors", "prometheusrules")
    theirs = [definition(f"{kind}.monitoring.coreos.com") for kind in kinds]
    there = [*DEFINITIONS, STRIMZI_CHART, CNPG_CHART]
    cluster.store([*there, *theirs])
    assert inspect_platform(lambda _: None).prometheus_operator
    cluster.store([*there, *theirs[:2]])
    assert not inspect_platform(lambda _: None).prometheus_operator


def test_no_answer_is_not_taken_for_a_no(cluster: StoredCluster) -> None:
    cluster.store([], broken=("api server",))
    with pytest.raises(DeployError, match="Unable to connect"):
        exists("mfc", "-A")
    cluster.store([])
    assert exists("mfc", "-A") is False


def ledger(namespace: str, kafka: str, topic: str = TOPIC) -> Item:
    strimzi = {"cluster": "microfin", "namespace": kafka}
    made: Item = item("MicrofinCluster", "microfin", namespace)
    return made | {"spec": {"topic": {"name": topic, "strimzi": strimzi}}}


def kafka_topic(namespace: str, name: str, owner: str) -> Item:
    return dict(
        item(
            "KafkaTopic", name, namespace, finalizers=[stand_in.TOPIC_OPERATOR],
            labels={"strimzi.io/cluster": "microfin"},
            annotations={"microfin.io/owned-by": f"{owner}/microfin"},
        )
    )  # fmt: skip


RELEASES = {
    "microfin": [("MicrofinCluster", "microfin", BANK)],
    "microfin-data": [("Kafka", "microfin", BANK)],
    "microfin-operator": [("Deployment", "microfin-operator", "microfin-system")],
}
SPACES = [item("Namespace", BANK), item("Namespace", "microfin-system")]
DEPLOYED = [
    *DEFINITIONS,
    MICROFIN,
    *SPACES,
    ledger(BANK, BANK),
    item("Kafka", "microfin", BANK),
    kafka_topic(BANK, TOPIC, BANK),
]


def undeploy() -> str:
    """Run it with little patience; return what it printed, its error at last."""
    done = CliRunner().invoke(application, ["undeploy", "--namespace", BANK, "--patience", "2"])
    return done.output + str(done.exception or "")


@pytest.mark.parametrize(
    "broken",
    [(), ("deletion of topics",), ("topic operator",)],
    ids=["all works", "Kafka deletes no topic", "the Topic Operator is down"],
)
def test_everything_of_the_bank_goes(cluster: StoredCluster, broken: tuple[str, ...]) -> None:
    cluster.store(DEPLOYED, RELEASES, broken)
    printed = undeploy()
    assert cluster.left() == {
        ("CustomResourceDefinition", it["metadata"]["name"]) for it in DEFINITIONS
    }
    parts = ["uninstalling microfin,", f"deleting kafkatopics.kafka.strimzi.io/{TOPIC} in {BANK}",
             "uninstalling microfin-data", f"deleting namespace {BANK}",
             "uninstalling microfin-operator", "deleting crd/"]  # fmt: skip
    places = [printed.index(part) for part in parts]
    assert places == sorted(places)
    assert ("Removing its finalizer" in printed) == ("topic operator" in broken)


def test_a_topic_whose_kafka_is_gone_does_not_hold_the_namespace(cluster: StoredCluster) -> None:
    """As after a removal in the wrong order, by hand or by an older release."""
    cluster.store([*DEFINITIONS, *SPACES, kafka_topic(BANK, TOPIC, BANK)])
    undeploy()
    assert ("Namespace", BANK) not in cluster.left()


def test_only_the_banks_topic_goes_from_the_kafka_of_another_namespace(
    cluster: StoredCluster,
) -> None:
    """The bank's MicrofinCluster names the topic of another bank, which the operator refuses."""
    theirs, ours = kafka_topic("kafka", TOPIC, "other"), kafka_topic("kafka", "bank.old", BANK)
    kafka = [item("Namespace", "kafka"), item("Kafka", "microfin", "kafka")]
    cluster.store([*DEFINITIONS, MICROFIN, *SPACES, *kafka, ledger(BANK, "kafka"), theirs, ours])
    undeploy()
    assert ("KafkaTopic", TOPIC) in cluster.left()
    assert ("KafkaTopic", "bank.old") not in cluster.left()


def test_a_topic_that_kafka_does_not_delete_ends_it_with_the_reason(cluster: StoredCluster) -> None:
    topic = kafka_topic("kafka", "bank.commands", BANK)
    kafka = [item("Namespace", "kafka"), item("Kafka", "microfin", "kafka")]
    cluster.store([*DEFINITIONS, *SPACES, *kafka, topic], broken=("deletion of topics",))
    printed = undeploy()
    assert "is not gone after 2 s" in printed
    assert "check the pod whose name ends with -entity-operator" in printed
    assert "Topic deletion is disabled." in printed


def test_the_operator_stays_for_another_bank(cluster: StoredCluster) -> None:
    other = [
        item("Namespace", "other"),
        ledger("other", "other"),
        kafka_topic("other", TOPIC, "other"),
    ]
    cluster.store([*DEPLOYED, *other], dict(RELEASES))
    printed = undeploy()
    assert "the operator stays, because it has other banks: other/microfin" in printed
    assert {("Namespace", "microfin-system"), ("MicrofinCluster", "microfin")} <= cluster.left()


def test_a_cluster_that_does_not_answer_loses_nothing(cluster: StoredCluster) -> None:
    cluster.store(DEPLOYED, broken=("api server",))
    assert "Unable to connect" in undeploy()
    assert ("CustomResourceDefinition", "microfinclusters.microfin.io") in cluster.left()
