"""Every pod that the charts make or ask an operator for; needs helm and no cluster.

Two clusters refuse pods that lack a field: one whose nodes are all tainted, and one with a
ResourceQuota, which demands requests and limits. Then a hook that lacks the field never starts, and
the installation hangs. A third one pulls images from its own registry only.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
import yaml

from e2e.kubernetes_cluster import ROOT
from e2e.rendered_chart import Item, objects, template
from microfin_operator.custom_resource import read_cluster
from microfin_operator.pod_template import administration_template, worker_template

CHARTS: Final = ("microfin-operator", "microfin-data", "microfin")
EVERYTHING: Final[dict[str, Any]] = {
    "microfin-operator": {"namespaces": ["microfin"]},
    "microfin-data": {
        "redis": {"exporter": {"enabled": True}},
        "kafka": {"rack": "topology.kubernetes.io/zone"},
    },
    "microfin": {
        "ingress": {"enabled": True},
        "kafkaSecrets": {"namespace": "kafka", "copies": {"microfin-api": "bank-microfin-api"}},
    },
}
TAINT: Final = {"key": "dedicated", "operator": "Exists", "effect": "NoSchedule"}
NODES: Final = [{"matchExpressions": [{"key": "arch", "operator": "In", "values": ["amd64"]}]}]
PLACE: Final[dict[str, Any]] = {
    "nodeSelector": {"pool": "bank"},
    "tolerations": [TAINT],
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": NODES}
        }
    },
    "priorityClassName": "bank",
    "imagePullSecrets": [{"name": "registry"}],
}
QUOTA: Final = {
    "requests": {"cpu": "11m", "memory": "111Mi"},
    "limits": {"cpu": "111m", "memory": "222Mi"},
}
FIXED: Final = re.compile(
    r"@sha256:[0-9a-f]{64}$|:v?\d+\.\d+\.\d+(-\w+)?$|:\d+\.\d+-\d{12}-[\w-]+$"
)


class Pod(NamedTuple):
    """What a pod's spec says, wherever an operator's resource keeps it."""

    name: str
    fields: dict[str, Any]
    resources: list[Item]


def render(chart: str, values: dict[str, Any], folder: Path, *files: Path) -> list[Item]:
    file = folder / f"{chart}.yaml"
    file.write_text(yaml.safe_dump(merged(EVERYTHING[chart], values)), encoding="utf-8")
    arguments = [part for it in (*files, file) for part in ("--values", str(it))]
    printed = template("microfin", ROOT / "charts" / chart, "microfin", *arguments)
    return [it for it in objects(printed) if it["kind"] != "CustomResourceDefinition"]


def merged(base: Any, over: Any) -> Any:
    if isinstance(base, dict) and isinstance(over, dict):
        return base | {name: merged(base.get(name), value) for name, value in over.items()}
    return over


def pods(items: list[Item]) -> Iterator[Pod]:
    for item in items:
        name, spec = f"{item['kind']} {item['metadata']['name']}", item.get("spec") or {}
        match item["kind"]:
            case "Pod":
                yield of_spec(name, spec)
            case "Deployment" | "StatefulSet" | "Job" | "Pooler":
                yield of_spec(name, spec["template"]["spec"])
            case "CronJob":
                yield of_spec(name, spec["jobTemplate"]["spec"]["template"]["spec"])
            case "MicrofinCluster":
                cluster = read_cluster(item)
                yield of_spec("worker", worker_template(cluster)["spec"])
                yield of_spec("operator's Job", administration_template(cluster, ["x"])["spec"])
            case "Cluster":
                place = spec["affinity"]
                yield Pod(name, {**spec, **place, "affinity": place}, [spec["resources"]])
            case "KafkaNodePool":
                yield Pod(name, spec["template"]["pod"], [spec["resources"]])
            case "Kafka":
                parts = spec["entityOperator"]
                resources = [parts[it]["resources"] for it in ("topicOperator", "userOperator")]
                yield Pod(name, parts["template"]["pod"], resources)
            case _:
                assert "containers" not in keys(item), f"{name}: a pod that this test does not know"


def of_spec(name: str, spec: Item) -> Pod:
    containers = [*spec["containers"], *spec.get("initContainers", ())]
    return Pod(name, spec, [it.get("resources") or {} for it in containers])


def keys(part: Any) -> set[str]:
    if isinstance(part, dict):
        return set(part).union(*map(keys, part.values()))
    return set().union(*map(keys, part)) if isinstance(part, list) else set()


def expressions(fields: Item) -> list[Item]:
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    terms = fields["affinity"]["nodeAffinity"][required]["nodeSelectorTerms"]
    return [it for term in terms for it in term["matchExpressions"]]


def parts(values: Any, field: str, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the places of a field in a chart's values, below its first level."""
    for name, value in (values if isinstance(values, dict) else {}).items():
        if name == field and path:
            yield path
        elif isinstance(value, dict):
            yield from parts(value, field, (*path, name))


def at(path: tuple[str, ...], values: dict[str, Any]) -> dict[str, Any]:
    return at(path[:-1], {path[-1]: values}) if path else values


def defaults(chart: str) -> dict[str, Any]:
    text = (ROOT / "charts" / chart / "values.yaml").read_text(encoding="utf-8")
    read: dict[str, Any] = yaml.safe_load(text)
    return read


@pytest.mark.parametrize("chart", CHARTS)
def test_on_tainted_nodes_every_pod_starts_by_five_values(chart: str, tmp_path: Path) -> None:
    found = list(pods(render(chart, PLACE, tmp_path)))
    assert found
    for pod in found:
        assert pod.fields.get("tolerations") == [TAINT], pod.name
        assert pod.fields.get("priorityClassName") == "bank", pod.name
        assert pod.fields.get("imagePullSecrets") == [{"name": "registry"}], pod.name
        asked = expressions(pod.fields)
        assert {"key": "arch", "operator": "In", "values": ["amd64"]} in asked, pod.name
        # Strimzi's pods have no nodeSelector; their affinity says the same.
        label = {"key": "pool", "operator": "In", "values": ["bank"]}
        assert pod.fields.get("nodeSelector") == {"pool": "bank"} or label in asked, pod.name


@pytest.mark.parametrize("chart", CHARTS)
def test_a_part_has_its_own_place(chart: str, tmp_path: Path) -> None:
    places = list(parts(defaults(chart), "priorityClassName"))
    values: dict[str, Any] = {}
    for path in places:
        values = merged(values, at(path, {"priorityClassName": "-".join(path).lower()}))
    found = {
        pod.fields.get("priorityClassName", "") for pod in pods(render(chart, values, tmp_path))
    }
    assert {"-".join(path).lower() for path in places} == found - {""}
    if chart != "microfin-operator":
        assert len(places) > 5


@pytest.mark.parametrize("chart", CHARTS)
def test_every_container_can_meet_a_resource_quota(chart: str, tmp_path: Path) -> None:
    values: dict[str, Any] = {}
    for path in parts(defaults(chart), "resources"):
        values = merged(values, at((*path, "resources"), QUOTA))
    if chart == "microfin-operator":
        values = {"resources": QUOTA}
    for pod in pods(render(chart, values, tmp_path)):
        assert pod.resources == [QUOTA] * len(pod.resources), pod.name


@pytest.mark.parametrize("chart", CHARTS)
def test_every_container_asks_for_resources_by_default(chart: str, tmp_path: Path) -> None:
    for pod in pods(render(chart, {}, tmp_path)):
        for resources in pod.resources:
            assert {"cpu", "memory"} <= resources.get("requests", {}).keys(), pod.name
            assert "memory" in resources.get("limits", {}), pod.name


def images(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        for name, value in part.items():
            if name in ("image", "imageName") and isinstance(value, str):
                yield value
            yield from images(value)
    elif isinstance(part, list):
        for inner in part:
            yield from images(inner)


def values_files(chart: str) -> list[tuple[Path, ...]]:
    return [(), *((it,) for it in sorted((ROOT / "charts" / chart).glob("values-*.yaml")))]


@pytest.mark.parametrize("chart", CHARTS)
def test_no_tag_moves(chart: str, tmp_path: Path) -> None:
    for files in values_files(chart):
        found = set(images(render(chart, {}, tmp_path, *files)))
        assert found
        assert {it for it in found if not FIXED.search(it)} == set(), files


@pytest.mark.parametrize("chart", CHARTS)
def test_every_image_comes_from_the_one_registry(chart: str, tmp_path: Path) -> None:
    registry = "registry.example.com:5000/mirror"
    usual = set(images(render(chart, {}, tmp_path)))
    copied = set(images(render(chart, {"global": {"imageRegistry": registry}}, tmp_path)))
    assert copied == {f"{registry}/{it.partition('/')[2]}" for it in usual}


@pytest.mark.parametrize("chart", CHARTS)
@pytest.mark.parametrize("registry", ["https://registry.example.com", "registry/", "a b", "x:tag"])
def test_what_is_no_registry_is_refused(chart: str, registry: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="imageRegistry"):
        render(chart, {"global": {"imageRegistry": registry}}, tmp_path)


@pytest.mark.parametrize("chart", CHARTS)
def test_the_platform_can_choose_every_user(chart: str, tmp_path: Path) -> None:
    """As OpenShift's restricted-v2 does, which refuses a fixed number."""
    values = {"redis": {"user": 0}} if chart == "microfin-data" else {}
    fixed = {"runAsUser", "runAsGroup", "fsGroup", "supplementalGroups"}
    assert not keys(render(chart, values, tmp_path)) & fixed
