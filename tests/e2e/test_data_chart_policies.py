"""The network policies of the chart microfin-data, against the table in its README."""

from collections.abc import Iterator
from typing import Any, Final

import pytest

from e2e.allowed_flows import data_rows
from e2e.data_chart import CHART, named, render
from e2e.rendered_chart import Item, objects, of_kind, template

Flow = tuple[str, str, str, str]

_SELECTORS: Final = {
    "strimzi.io/name: microfin-kafka": "Kafka",
    "strimzi.io/name: microfin-entity-operator": "entity operator",
    "strimzi.io/kind: cluster-operator": "Strimzi's operator",
    "app.kubernetes.io/name: cloudnative-pg": "CloudNativePG's operator",
    "cnpg.io/cluster: microfin-postgres-0": "shard",
    "cnpg.io/poolerName: microfin-pooler-0": "pooler",
    "app.kubernetes.io/name: microfin-redis": "Redis",
    "app.kubernetes.io/name: microfin": "microfin",
}
_NAMES: Final = frozenset({"names", "API server", "metrics"})


def pods(selector: dict[str, Any]) -> str:
    """Return what the table calls the pods of a selector."""
    labels = {f"{name}: {text}" for name, text in selector.get("matchLabels", {}).items()}
    (name,) = {_SELECTORS[label] for label in labels if label in _SELECTORS}
    for expression in selector.get("matchExpressions", ()):
        if expression["operator"] == "In":
            name += f" {', '.join(expression['values'])}"
        else:
            assert expression == {"key": "cnpg.io/poolerName", "operator": "DoesNotExist"}
    return name


def peers(rule: Item, direction: str) -> list[str]:
    found = []
    for peer in rule.get(direction, [{}]):
        if "podSelector" in peer:
            found.append(pods(peer["podSelector"]))
        else:
            found.append("anybody's pods" if peer else "anywhere")
    return found


def ports(rule: Item) -> str:
    shown = {
        f"{it['port']}/UDP" if it.get("protocol") == "UDP" else str(it["port"])
        for it in rule["ports"]
    }
    return ", ".join(sorted(shown, key=lambda it: (not it.endswith("UDP"), len(it), it)))


def flows(policy: Item) -> Iterator[Flow]:
    spec = policy["spec"]
    own = pods(spec["podSelector"])
    for kind, direction in (("ingress", "from"), ("egress", "to")):
        for rule in spec[kind]:
            for peer in peers(rule, direction):
                yield own, direction, peer, ports(rule)


def policies(*values: str) -> list[Item]:
    return of_kind(render(*values), "NetworkPolicy")


def table() -> list[Flow]:
    def plain(cell: str) -> str:
        name, _, reason = cell.partition(" (")
        assert not reason or reason.removesuffix(")") in _NAMES, cell
        return str(name)

    return [(row[0], row[1], plain(row[2]), plain(row[3])) for row in data_rows()]


def test_they_allow_what_the_table_says_and_nothing_else() -> None:
    made = policies("redis.exporter.enabled=true")
    rendered = [flow for policy in made for flow in flows(policy)]
    assert len(table()) > 20
    assert sorted(rendered) == sorted(table())


def test_nobody_is_let_in_for_an_exporter_that_is_not_there() -> None:
    assert "9121" not in str(policies())


def test_each_denies_everything_else() -> None:
    for policy in policies():
        assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
        for rule in policy["spec"]["ingress"]:
            assert rule["from"], "a rule without peers lets everybody in"
            assert rule["ports"], "a rule without ports lets everything in"


def opened_by_a_label(policies: list[Item]) -> list[Item]:
    """Return the peers that any pod of any namespace is, if it takes a label."""
    rules = [rule for it in policies for rule in it["spec"].get("ingress", [])]
    found = [peer for rule in rules for peer in rule.get("from", [{}])]
    return [it for it in found if it.get("namespaceSelector") == {} and it.get("podSelector")]


@pytest.mark.parametrize("chart", ["microfin-data", "microfin", "microfin-operator"])
def test_no_label_opens_a_port_to_every_namespace(chart: str) -> None:
    values = ("--set", "watchAllNamespaces=true") if chart == "microfin-operator" else ()
    items = objects(template("bank", CHART.parent / chart, "bank", *values))
    assert opened_by_a_label(of_kind(items, "NetworkPolicy")) == []


def test_every_pod_is_under_one() -> None:
    items = render("postgres.shards=2")
    selected = [str(it["spec"]["podSelector"]) for it in of_kind(items, "NetworkPolicy")]
    wanted = [
        "'strimzi.io/name': 'microfin-kafka'",
        "'strimzi.io/name': 'microfin-entity-operator'",
        "'cnpg.io/cluster': 'microfin-postgres-0'",
        "'cnpg.io/cluster': 'microfin-postgres-1'",
        "'cnpg.io/poolerName': 'microfin-pooler-0'",
        "'cnpg.io/poolerName': 'microfin-pooler-1'",
        "'app.kubernetes.io/name': 'microfin-redis'",
    ]
    assert len(selected) == len(wanted)
    for label in wanted:
        assert sum(label in selector for selector in selected) == 1, label
    redis = named(items, "StatefulSet", "microfin-redis")["spec"]["template"]["metadata"]["labels"]
    policy = named(items, "NetworkPolicy", "microfin-redis")["spec"]["podSelector"]["matchLabels"]
    assert policy.items() <= redis.items()


def test_they_can_be_switched_off() -> None:
    assert policies("networkPolicy.enabled=false") == []


def test_others_may_be_let_in() -> None:
    value = "networkPolicy.clients[0].podSelector.matchLabels.shell=mine"
    guest = {"podSelector": {"matchLabels": {"shell": "mine"}}}
    letting_in = [
        policy["metadata"]["name"]
        for policy in policies(value)
        if any(guest in rule["from"] for rule in policy["spec"]["ingress"])
    ]
    assert letting_in == [
        "microfin-kafka",
        "microfin-postgres-0",
        "microfin-pooler-0",
        "microfin-redis",
    ]
