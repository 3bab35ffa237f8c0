"""The values that `make deploy` gives helm, and its summary; no cluster needed."""

import json
from typing import Any

import pytest
import yaml

from microfin_deploy import platform
from microfin_deploy.commands import ROOT, DeployError, run
from microfin_deploy.images import COMPONENTS, image, source_tag
from microfin_deploy.kind import VENDORS, values_files
from microfin_deploy.platform import (
    ExistingKafka,
    Platform,
    require_certificates,
    require_permission,
)
from microfin_deploy.releases import (
    Wanted,
    application_values,
    data_values,
    merged,
    operator_values,
)
from microfin_deploy.summary import components, summary

KAFKA = ExistingKafka("kafka", "main")
EXISTING = Platform(KAFKA, ingress_class="")
REAL = Platform(None, ingress_class="nginx")
WANTED = Wanted(
    "bank", "bank-system", "dev", "dev-1", shards=2, host="bank.test", topic="b.commands"
)


def test_values_lie_over_values_key_by_key() -> None:
    base = {"a": {"b": 1, "c": [1]}, "d": 2}
    assert merged(base, {"a": {"c": [2]}, "e": 3}) == {"a": {"b": 1, "c": [2]}, "d": 2, "e": 3}
    assert base == {"a": {"b": 1, "c": [1]}, "d": 2}


def test_with_strimzi_the_charts_fit_by_their_defaults() -> None:
    values = application_values(WANTED, REAL)
    assert "kafka" not in values
    assert values["topic"] == {"name": "b.commands"}
    assert values["postgres"] == {"shards": 2}
    assert values["ingress"]["host"] == "bank.test"
    assert data_values(WANTED, REAL)["kafka"] == {"enabled": True, "topic": "b.commands"}


def test_an_existing_kafka_is_used_by_certificates_that_are_copied() -> None:
    values = application_values(WANTED, EXISTING)
    assert values["kafka"] == {"bootstrap": "main-kafka-bootstrap.kafka:9093"}
    assert values["kafkaSecrets"]["namespace"] == "kafka"
    copies = values["kafkaSecrets"]["copies"]
    assert copies.pop("microfin-cluster-ca-cert") == "main-cluster-ca-cert"
    assert all(original == f"bank-{copy}" for copy, original in copies.items())
    assert values["topic"]["strimzi"] == {"cluster": "main", "namespace": "kafka"}
    assert values["topic"]["name"] == "b.commands"
    assert values["networkPolicy"].keys() == {"kafka", "operator"}
    assert "ingress" not in values
    kafka = data_values(WANTED, EXISTING)["kafka"]
    assert kafka["enabled"] is False
    # The charts' tests in tests/e2e compare the users that the chart makes by these values.
    assert kafka["existing"] == {"name": "main", "namespace": "kafka"}


TLS_LISTENER = {"port": 9093, "tls": True, "authentication": {"type": "tls"}}
SIMPLE = {"type": "simple"}


@pytest.mark.parametrize(
    ("listener", "authorization"),
    [
        ({"port": 9092, "tls": False}, SIMPLE),
        ({"port": 9093, "tls": True}, SIMPLE),
        ({"port": 9093, "tls": True, "authentication": {"type": "scram-sha-512"}}, SIMPLE),
        (TLS_LISTENER, None),
    ],
    ids=["no TLS", "no certificates", "passwords", "no rights"],
)
def test_an_existing_kafka_that_anybody_may_write_to_is_refused(
    monkeypatch: pytest.MonkeyPatch,
    listener: dict[str, Any],
    authorization: dict[str, str] | None,
) -> None:
    kafka = {"listeners": [listener]} | ({"authorization": authorization} if authorization else {})
    monkeypatch.setattr(platform, "kubectl", lambda *_: json.dumps({"spec": {"kafka": kafka}}))
    with pytest.raises(DeployError, match="kafka/main has no listener on port 9093"):
        require_certificates(KAFKA)


def test_an_existing_kafka_with_certificates_and_rights_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kafka = {"listeners": [{"port": 9092, "tls": False}, TLS_LISTENER], "authorization": SIMPLE}
    monkeypatch.setattr(platform, "kubectl", lambda *_: json.dumps({"spec": {"kafka": kafka}}))
    require_certificates(KAFKA)


def test_the_operator_serves_the_banks_and_no_more() -> None:
    assert operator_values(WANTED, REAL, set())["namespaces"] == ["bank"]
    assert operator_values(WANTED, REAL, {"other"})["namespaces"] == ["bank", "other"]
    assert operator_values(WANTED, EXISTING, set())["namespaces"] == ["bank", "kafka"]


def kubectl_that_finds(monkeypatch: pytest.MonkeyPatch, *, topic: bool, allowed: str) -> None:
    """Answer for a cluster whose Kafka allows these namespaces."""
    found = {"metadata": {"annotations": {"microfin.io/allow-namespaces": allowed}}}
    monkeypatch.setattr(platform, "exists", lambda *_: topic)
    monkeypatch.setattr(platform, "kubectl", lambda *_: json.dumps(found))


@pytest.mark.parametrize(("topic", "allowed"), [(False, "other, bank"), (True, "other")])
def test_an_existing_kafka_that_allows_the_bank_is_used(
    monkeypatch: pytest.MonkeyPatch, topic: bool, allowed: str
) -> None:
    kubectl_that_finds(monkeypatch, topic=topic, allowed=allowed)
    require_permission(KAFKA, "bank", "b.commands")


def test_an_existing_kafka_that_does_not_allow_the_bank_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kubectl_that_finds(monkeypatch, topic=False, allowed="other")
    with pytest.raises(DeployError, match="allow-namespaces=other,bank --overwrite"):
        require_permission(KAFKA, "bank", "b.commands")


@pytest.mark.parametrize("text", ["main", "/main", "kafka/", "a/b/c"])
def test_what_names_no_kafka_is_refused(text: str) -> None:
    with pytest.raises(DeployError, match="NAMESPACE/NAME"):
        ExistingKafka.parse(text)


def test_the_operator_is_let_in_where_it_is() -> None:
    (peer,) = application_values(WANTED, REAL)["networkPolicy"]["operator"]
    assert peer["namespaceSelector"]["matchLabels"] == {
        "kubernetes.io/metadata.name": "bank-system"
    }


def test_nothing_needs_a_prometheus_operator_that_is_not_there() -> None:
    """The API server would refuse the whole release, because it does not know the kinds."""
    platform = Platform(None, ingress_class="nginx", prometheus_operator=False)
    off = {"enabled": False}
    assert data_values(WANTED, platform)["metrics"] == {"podMonitors": off, "rules": off}
    assert set(application_values(WANTED, platform)["monitoring"]) == {
        "serviceMonitor",
        "podMonitor",
        "rules",
    }
    assert "metrics" not in data_values(WANTED, REAL)
    assert "monitoring" not in application_values(WANTED, REAL)
    assert dict(components(WANTED, platform))["Monitors and alerts"].startswith("missing")


def test_the_summary_says_what_is_missing() -> None:
    states = dict(components(WANTED, EXISTING))
    assert states["Kafka"].startswith("existing")
    assert states["Ingress"].startswith("missing")
    assert states["PostgreSQL"].startswith("real")
    assert all(
        it.startswith(("real", "enforced", "none"))
        for it in dict(components(WANTED, REAL)).values()
    )
    assert "scale mfc/microfin --replicas=12" in summary(WANTED, REAL)


def test_the_tag_changes_with_the_images_sources() -> None:
    assert source_tag() == source_tag()
    untracked = ROOT / "services/core/src/microfin/tag_test_only.py"
    before = source_tag()
    try:
        untracked.write_text("x = 1\n")
        assert source_tag() != before
    finally:
        untracked.unlink()
    assert source_tag() == before


def test_the_images_are_the_dockerfiles_targets() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert all(f" AS {part}\n" in dockerfile for part in COMPONENTS)
    assert image("api", "1.0.0") == "ghcr.io/microfin/api:1.0.0"


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_vendors_version_is_in_one_place(vendor: str) -> None:
    """The README's command installs what `make kind-up` installs."""
    folder = ROOT / "k8s" / vendor
    release = yaml.safe_load((folder / "release.yaml").read_text(encoding="utf-8"))
    readme = " ".join(
        (folder / "README.md").read_text(encoding="utf-8").replace("\\\n", " ").split()
    )
    repository = f"--repo {release['repository']} " if "repository" in release else ""
    command = (
        f"helm upgrade --install {vendor} {release['chart']} {repository}"
        f"--version {release['version']} -n {release['namespace']} --create-namespace --wait "
        f"--values k8s/{vendor}/values.yaml --values k8s/{vendor}/values-production.yaml"
    )
    assert command in readme
    assert isinstance(yaml.safe_load((folder / "values.yaml").read_text(encoding="utf-8")), dict)


def test_what_fails_is_said_in_its_own_words() -> None:
    with pytest.raises(DeployError, match="is not a git command"):
        run("git", "there-is-no-such-command")
    with pytest.raises(DeployError, match="not installed"):
        run("there-is-no-such-program")


def test_kind_gets_the_values_of_one_node_and_its_own_last() -> None:
    files = [file.name for file in values_files(ROOT / "k8s/ingress-nginx")]
    assert files == ["values.yaml", "values-dev.yaml", "values-kind.yaml"]
    assert [file.name for file in values_files(ROOT / "k8s/cnpg")] == files[:2]
