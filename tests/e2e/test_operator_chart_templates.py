"""What the operator's chart renders, template by template; needs helm and no cluster."""

from typing import Any

import pytest
import yaml

from e2e.allowed_flows import flows
from e2e.kubernetes_cluster import CUSTOM_RESOURCE, ROOT
from e2e.rendered_chart import Item, objects, of_kind, template

CHART = ROOT / "charts/microfin-operator"


def render(*values: str) -> list[Item]:
    scope = () if any("amespaces=" in value for value in values) else ("watchAllNamespaces=true",)
    sets = [part for value in (*scope, *values) for part in ("--set", value)]
    return objects(template("bank", CHART, "system", *sets))


def test_the_definition_is_the_one_that_is_tested_and_is_kept() -> None:
    (definition,) = of_kind(render(), "CustomResourceDefinition")
    source = yaml.safe_load(CUSTOM_RESOURCE.read_text(encoding="utf-8"))
    assert definition["spec"] == source["spec"]
    assert definition["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert of_kind(render("crd.install=false"), "CustomResourceDefinition") == []


def test_one_operator_that_is_never_two() -> None:
    (deployment,) = of_kind(render(), "Deployment")
    assert deployment["spec"]["replicas"] == 1
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}


def test_its_pod_is_restricted() -> None:
    (deployment,) = of_kind(render(), "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    probes = {container[name]["httpGet"]["path"] for name in ("readinessProbe", "livenessProbe")}
    assert probes == {"/readyz", "/healthz"}


@pytest.mark.parametrize(
    ("value", "image"),
    [
        ("image.tag=", "ghcr.io/microfin/operator:0.1.0"),
        ("image.tag=2.0.0", "ghcr.io/microfin/operator:2.0.0"),
        (f"image.digest=sha256:{'a' * 64}", f"ghcr.io/microfin/operator@sha256:{'a' * 64}"),
    ],
)
def test_the_image(value: str, image: str) -> None:
    (deployment,) = of_kind(render(value), "Deployment")
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == image


def rules(items: list[dict[str, Any]]) -> list[tuple[str, str]]:
    roles = of_kind(items, "ClusterRole") + of_kind(items, "Role")
    return [
        (resource, verb)
        for role in roles
        for rule in role["rules"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    ]


def test_its_permissions_hold_no_secret_no_exec_and_no_wildcard() -> None:
    found = rules(render())
    resources = {resource for resource, _ in found}
    assert not resources & {"secrets", "pods/exec", "pods/log", "*"}
    assert "*" not in {verb for _, verb in found}
    assert ("statefulsets", "delete") not in found


def test_everywhere_or_only_in_some_namespaces() -> None:
    everywhere = render()
    assert len(of_kind(everywhere, "ClusterRoleBinding")) == 2
    assert of_kind(everywhere, "RoleBinding") == []
    some = render("namespaces={apps,data}")
    assert [it["metadata"]["namespace"] for it in of_kind(some, "RoleBinding")] == ["apps", "data"]
    (binding,) = of_kind(some, "ClusterRoleBinding")
    assert binding["metadata"]["name"].endswith("-discovery")
    (deployment,) = of_kind(some, "Deployment")
    environment = deployment["spec"]["template"]["spec"]["containers"][0]["env"]
    assert {"name": "MICROFIN_OPERATOR_NAMESPACES", "value": "apps data"} in environment


def test_without_a_word_it_may_do_nothing_anywhere() -> None:
    with pytest.raises(ValueError, match="watchAllNamespaces=true"):
        template("bank", CHART, "system")
    with pytest.raises(ValueError, match="contradict"):
        render("watchAllNamespaces=true", "namespaces={apps}")


def test_the_policy_allows_what_the_table_says_and_nothing_else() -> None:
    (policy,) = of_kind(render(), "NetworkPolicy")
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    (metrics,) = policy["spec"]["ingress"]
    names, api_server, workers = policy["spec"]["egress"]
    workers_pods = {"matchLabels": {"app.kubernetes.io/managed-by": "microfin-operator"}}
    assert metrics["ports"] == [{"port": "http"}]
    assert {it["port"] for it in names["ports"]} >= {53}
    assert api_server.keys() == {"ports"}
    assert [peer["podSelector"] for peer in workers["to"]] == [workers_pods]
    rows = {
        *(("operator", "anybody", it["port"]) for it in api_server["ports"]),
        *(("operator", "worker", it["port"]) for it in workers["ports"]),
        *(("anybody", "operator", 8080) for _ in metrics["ports"]),
    }
    assert rows == set(flows("microfin-operator"))


def test_what_is_optional() -> None:
    assert of_kind(render(), "PodMonitor") == []
    assert len(of_kind(render("metrics.podMonitor.enabled=true"), "PodMonitor")) == 1
    assert len(of_kind(render(), "NetworkPolicy")) == 1
    assert of_kind(render("networkPolicy.enabled=false"), "NetworkPolicy") == []


@pytest.mark.parametrize(
    "value", ["typo=1", "image.digest=x", "log.level=loud", "resyncSeconds=1", "namespaces=apps"]
)
def test_wrong_values_are_refused(value: str) -> None:
    with pytest.raises(ValueError, match=value.partition("=")[0].partition(".")[0]):
        render(value)
