"""The names that the charts give, against docs/reference/names.md; needs helm and no cluster."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

import pytest

from e2e.data_chart import CHART, DEV, PRODUCTION
from e2e.kubernetes_cluster import ROOT
from e2e.rendered_chart import Item, objects, of_kind, template

OPERATOR: Final = CHART.parent / "microfin-operator"
NAMES: Final = ROOT / "docs/reference/names.md"
_ROW: Final = re.compile(r"^\| ([^|]+) \| ([^|]+) \| (`[^|]+`) \|$", re.MULTILINE)
_ALL_OF_DATA: Final = (
    "postgres.shards=2,postgres.backup.enabled=true,postgres.backup.objectStore=store,"
    "metrics.podMonitors.enabled=true,metrics.rules.enabled=true,metrics.dashboards.enabled=true,"
    "redis.exporter.enabled=true,redis.tls.enabled=true,redis.tls.issuer.name=authority"
)
_MAKERS: Final = {
    "{kafka}": "Kafka",
    "{pool}": "KafkaNodePool",
    "{user}": "KafkaUser",
    "{cluster}": "Cluster",
    "{pooler}": "Pooler",
    "{backup}": "ScheduledBackup",
    "{bank}": "MicrofinCluster",
    "{certificate}": "Certificate",
}


def rendered(*values: str) -> list[Item]:
    """Return what the three charts make in one namespace, with everything that can be on."""
    everywhere = ("--set", "watchAllNamespaces=true")
    return [
        *of_a_bank(*values),
        *objects(template("microfin-operator", OPERATOR, "bank", *everywhere)),
    ]


def of_a_bank(*values: str) -> list[Item]:
    """Return what the two charts of a bank make."""
    bank = CHART.parent / "microfin"
    production = ("--values", str(bank / "values-production.yaml"))
    return [
        *objects(template("microfin-data", CHART, "bank", "--set", _ALL_OF_DATA, *values)),
        *objects(template("microfin", bank, "bank", *production)),
    ]


def patterns(items: list[Item]) -> Iterator[tuple[str, str, re.Pattern[str]]]:
    """Return the maker, kind and pattern of each name of the table, for these objects."""
    known = {
        place: "|".join(re.escape(it["metadata"]["name"]) for it in of_kind(items, kind))
        for place, kind in _MAKERS.items()
    }
    known |= {"{n}": "[0-9]+", "{test}": "load-[a-z]+-[0-9a-f]{8}", "*": ".*"}
    rows = _ROW.findall(NAMES.read_text(encoding="utf-8"))
    for maker, kinds, cells in rows:
        for name in re.findall("`([^`]+)`", cells):
            parts = re.split(r"(\{[a-z]+\}|\*)", name)
            text = "".join(
                f"(?:{known[part]})" if part in known else re.escape(part) for part in parts
            )
            for kind in kinds.split(", "):
                yield maker, kind, re.compile(text)


def collisions(items: list[Item]) -> list[str]:
    """Return the objects whose name an operator would also give to an object of this kind."""
    taken = list(patterns(items))
    return [
        f"{item['kind']} {item['metadata']['name']} is {maker}'s"
        for item in items
        for maker, kind, pattern in taken
        if kind == item["kind"] and pattern.fullmatch(item["metadata"]["name"])
    ]


@pytest.mark.parametrize("values", [(), ("--values", str(DEV)), ("--values", str(PRODUCTION))])
def test_no_name_is_one_that_an_operator_gives(values: tuple[str, ...]) -> None:
    assert len(list(patterns(rendered(*values)))) > 80
    assert collisions(rendered(*values)) == []


def test_no_two_charts_give_one_name_in_one_namespace() -> None:
    made = Counter((it["kind"], it["metadata"]["name"]) for it in rendered())
    assert [name for name, count in made.items() if count > 1] == []


def test_two_banks_in_one_namespace_share_no_name() -> None:
    second = (
        "name=savings,kafka.controllers.name=savings-controller,kafka.brokers.name=savings-broker"
    )
    banks = [
        objects(template(release, CHART, "bank", "--set", f"{_ALL_OF_DATA},{more}"))
        for release, more in (("microfin-data", "name=microfin"), ("savings-data", second))
    ]
    one, other = ({(it["kind"], it["metadata"]["name"]) for it in bank} for bank in banks)
    assert one & other == set()
    assert collisions([*banks[0], *banks[1]]) == []


def test_two_operators_share_no_name_outside_their_namespaces() -> None:
    """The definition is one for the cluster; one of the releases makes it."""
    values = ("--set", "namespaces={kafka},crd.install=false")
    one, other = (
        {
            (it["kind"], it["metadata"].get("namespace", ""), it["metadata"]["name"])
            for it in objects(template(release, OPERATOR, release, *values))
            if it["metadata"].get("namespace") != release
        }
        for release in ("one", "other")
    )
    assert {kind for kind, *_ in one} == {"ClusterRole", "ClusterRoleBinding", "RoleBinding"}
    assert one & other == set()


def test_a_bank_makes_nothing_outside_its_namespace() -> None:
    assert {it["metadata"].get("namespace") for it in of_a_bank()} == {"bank"}


def made(kind: str, name: str) -> Item:
    return {"kind": kind, "metadata": {"name": name}}


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("NetworkPolicy", "microfin-entity-operator"),
        ("Secret", "microfin-worker"),
        ("Secret", "microfin-postgres-1-app"),
        ("PodDisruptionBudget", "microfin-postgres-0"),
        ("Service", "microfin-pooler-0"),
        ("ConfigMap", "microfin-broker-0"),
        ("StatefulSet", "microfin-worker"),
    ],
)
def test_a_name_of_an_operator_is_found(kind: str, name: str) -> None:
    assert collisions([*rendered(), made(kind, name)])


def test_cloudnativepg_is_not_asked_for_a_podmonitor() -> None:
    """Its PodMonitor would have the name of the chart's."""

    def fields(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            for name, inner in value.items():
                yield name
                yield from fields(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from fields(inner)

    assert "enablePodMonitor" not in set(fields(rendered()))
