"""What the chart microfin renders as a whole; needs helm and no cluster.

Each template by itself is tested by charts/microfin/tests (`charts/unittest.sh`).
"""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from e2e.allowed_flows import flows
from e2e.kubernetes_cluster import ROOT
from e2e.rendered_chart import Item, objects, template

CHART = ROOT / "charts/microfin"
VALUES = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
POLICIES = VALUES["networkPolicy"]
DNS = {
    "ports": [
        {"port": port, "protocol": protocol} for port in (53, 5353) for protocol in ("UDP", "TCP")
    ]
}


COPIES = ("--set", "kafkaSecrets.namespace=kafka,kafkaSecrets.copies.microfin-api=bank-api")
ARCHIVE = ("--set", "archive.host=microfin-archive-rw")


def render(*arguments: str) -> list[Item]:
    return objects(template("microfin", CHART, "bank", *arguments))


def pods(items: list[Item]) -> Iterator[tuple[str, Item]]:
    """Yield labels and spec of every pod that the chart makes itself, by its component."""
    for item in items:
        template = {
            "Pod": lambda it: it,
            "Deployment": lambda it: it["spec"]["template"],
            "Job": lambda it: it["spec"]["template"],
            "CronJob": lambda it: it["spec"]["jobTemplate"]["spec"]["template"],
        }.get(item["kind"])
        if template is not None:
            pod = template(item)
            yield pod["metadata"]["labels"]["app.kubernetes.io/component"], pod["spec"]


def test_every_pod_is_restricted() -> None:
    found = dict(pods(render(*COPIES)))
    parts = {"api", "migrate", "audit", "administration", "test", "tools", "kafka-secrets"}
    assert set(found) == parts
    for component, spec in found.items():
        # Only who copies Secrets uses the API server.
        assert spec["automountServiceAccountToken"] is (component == "kafka-secrets")
        assert spec["securityContext"] == {
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        (container,) = spec["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        }
        assert {"requests", "limits"} <= container["resources"].keys()


def name_of_peers(peers: list[Item]) -> str:
    """Return the component or the value that peers come from."""
    for name, value in POLICIES.items():
        if value == peers:
            return str(name)
    (peer,) = peers
    labels = peer["podSelector"]["matchLabels"]
    assert peer.keys() == {"podSelector"}, peer
    assert labels == selector(labels["app.kubernetes.io/component"])
    return str(labels["app.kubernetes.io/component"])


def selector(component: str) -> dict[str, str]:
    return {
        "app.kubernetes.io/name": "microfin",
        "app.kubernetes.io/instance": "microfin",
        "app.kubernetes.io/component": component,
    }


def rules(policy: Item) -> Iterator[tuple[str, str, int, str]]:
    """Yield what a policy allows: from, to, port, and at which end."""
    component = policy["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/component"]
    assert policy["spec"]["podSelector"]["matchLabels"] == selector(component)
    for rule in policy["spec"].get("ingress", ()):
        for port in rule["ports"]:
            yield name_of_peers(rule["from"]), component, port["port"], "ingress"
    first, *others = policy["spec"]["egress"]
    assert first == DNS
    for rule in others:
        for port in rule["ports"]:
            to = name_of_peers(rule["to"]) if "to" in rule else "anybody"
            yield component, to, port["port"], "egress"


def test_the_policies_allow_what_the_table_says_and_nothing_else() -> None:
    everything, *policies = [
        it for it in render(*COPIES, *ARCHIVE) if it["kind"] == "NetworkPolicy"
    ]
    assert everything["spec"] == {
        "podSelector": {"matchLabels": {k: v for k, v in selector("").items() if v}},
        "policyTypes": ["Ingress", "Egress"],
    }
    allowed = {rule for policy in policies for rule in rules(policy)}
    assert {rule[:3] for rule in allowed} == set(flows("microfin"))
    for source, target, port, _ in allowed:
        # Where both ends are the release's, both must allow it.
        if not {source, target} & {*POLICIES, "anybody"}:
            assert {(source, target, port, end) for end in ("ingress", "egress")} <= allowed


def test_every_component_has_its_policy() -> None:
    items = render(*COPIES)
    policed = {
        item["spec"]["podSelector"]["matchLabels"].get("app.kubernetes.io/component")
        for item in items
        if item["kind"] == "NetworkPolicy"
    }
    assert {component for component, _ in pods(items)} | {"worker"} == policed - {None}


def test_a_hook_finds_what_it_needs() -> None:
    """Hooks run while nothing else of the chart is there: what they name must be a hook before."""
    hooks = {
        (item["kind"], item["metadata"]["name"]): int(annotations["helm.sh/hook-weight"])
        for item in render()
        if "pre-install"
        in (annotations := item["metadata"].get("annotations", {})).get("helm.sh/hook", "")
    }
    (job,) = [item for item in render() if item["kind"] == "Job"]
    spec = job["spec"]["template"]["spec"]
    weight = hooks["Job", "microfin-migrate-1"]
    assert hooks["ServiceAccount", spec["serviceAccountName"]] < weight
    assert hooks["NetworkPolicy", "microfin-migrate"] < weight
    assert "configMap" not in str(spec)


def checksums(*arguments: str) -> tuple[str, str]:
    items = render(*arguments)
    (api,) = [item for item in items if item["kind"] == "Deployment"]
    (cluster,) = [item for item in items if item["kind"] == "MicrofinCluster"]
    worker = cluster["spec"]["worker"]["podTemplate"]
    return (
        api["spec"]["template"]["metadata"]["annotations"]["checksum/config"],
        worker["metadata"]["annotations"]["checksum/config"],
    )


def test_pods_are_rolled_when_their_settings_change_and_only_then() -> None:
    api, worker = checksums()
    assert checksums() == (api, worker)
    other_api, same_worker = checksums("--set-string", "api.settings.MICROFIN_REQUEST_LIMIT=10")
    assert (other_api != api, same_worker) == (True, worker)
    same_api, other_worker = checksums("--set-string", "worker.settings.MICROFIN_BATCH_LIMIT=10")
    assert (same_api, other_worker != worker) == (api, True)
    both = checksums("--set", "kafka.bootstrap=other:9093")
    assert both[0] != api
    assert both[1] != worker


def test_no_password_is_anywhere() -> None:
    for item in render():
        if item["kind"] == "Secret":
            assert item["metadata"]["name"] == "microfin-session"
            continue
        for name, value in variables(item):
            if "PASSWORD" in name or "SECRET" in name:
                assert value is None, name
            elif "://" in (value or ""):
                assert re.fullmatch(r"\S+://\S*\$\(\w+_PASSWORD\)@\S+", value or ""), value


def variables(part: Any) -> Iterator[tuple[str, str | None]]:
    """Yield the variables of all containers in an object: name, and value if it is given there."""
    if isinstance(part, dict):
        for variable in part.get("env", ()):
            yield variable["name"], variable.get("value")
        for inner in part.values():
            yield from variables(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from variables(inner)


@pytest.mark.parametrize("size", ["dev", "production"])
def test_the_values_for_a_size_are_taken(size: str) -> None:
    items = render("--values", str(CHART / f"values-{size}.yaml"))
    (cluster,) = [item for item in items if item["kind"] == "MicrofinCluster"]
    assert "partitions" not in cluster["spec"]
    kinds = {item["kind"] for item in items}
    assert ("Ingress" in kinds) == (size == "production")


@pytest.mark.parametrize(
    "value", ["typo=1", "image.apiDigest=x", "log.level=loud", "topic.replicas=0", "redis.nodes=a"]
)
def test_wrong_values_are_refused(value: str) -> None:
    with pytest.raises(ValueError, match=value.partition("=")[0].partition(".")[0]):
        render("--set", value)
