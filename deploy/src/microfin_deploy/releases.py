"""The three releases: the values of each, their order, and the conditions that they wait for."""

from dataclasses import dataclass, field
from tempfile import NamedTemporaryFile
from typing import Any

import yaml

from microfin_deploy.commands import (
    ROOT,
    DeployError,
    Say,
    apply,
    exists,
    helm,
    kubectl,
)
from microfin_deploy.platform import ExistingKafka, Platform

OPERATOR_NAMESPACE = "microfin-system"
_DEFINITION = "microfinclusters.microfin.io"
_OFF = {"enabled": False}
_RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


@dataclass(frozen=True)
class Wanted:
    """What to install. `data`, `application` and `operator` are values that override others."""

    namespace: str
    operator_namespace: str
    size: str
    tag: str
    shards: int = 1
    host: str = ""
    topic: str = "microfin.commands"
    operator_release: str = "microfin-operator"
    data: dict[str, Any] = field(default_factory=dict)
    application: dict[str, Any] = field(default_factory=dict)
    operator: dict[str, Any] = field(default_factory=dict)


def make_namespaces(wanted: Wanted) -> None:
    """Create both namespaces, which enforce the restricted Pod Security Standard."""
    for name in (wanted.namespace, wanted.operator_namespace):
        metadata = {"name": name, "labels": _RESTRICTED}
        apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})


def install_operator(wanted: Wanted, platform: Platform, say: Say) -> None:
    """Install the operator and its CustomResourceDefinition for this bank and all others."""
    say(f"installing microfin-operator in {wanted.operator_namespace}")
    values = merged(operator_values(wanted, platform, _served()), wanted.operator)
    _install("microfin-operator", wanted.operator_namespace, values, (), wanted.operator_release)
    kubectl("wait", "--for=condition=Established", f"crd/{_DEFINITION}", "--timeout=60s")
    deployment = ("deployment", "-l", "app.kubernetes.io/name=microfin-operator")
    kubectl("-n", wanted.operator_namespace, "wait", "--for=condition=Available", *deployment,
            "--timeout=120s")  # fmt: skip


def install_data(wanted: Wanted, platform: Platform, say: Say) -> None:
    """Install databases, Redis and, with Strimzi, Kafka, and wait until they serve."""
    if not (ROOT / "charts/microfin-data").is_dir():
        raise DeployError("charts/microfin-data does not exist: use a complete checkout.")
    say(f"installing microfin-data in {wanted.namespace}")
    values = merged(data_values(wanted, platform), wanted.data)
    _install("microfin-data", wanted.namespace, values, (wanted.size,))
    for shard in range(wanted.shards):
        _wait(wanted, f"clusters.postgresql.cnpg.io/microfin-postgres-{shard}", say)
    for shard in range(wanted.shards):
        _rolled_out(wanted, f"deployment/microfin-pooler-{shard}", say)
    _rolled_out(wanted, "statefulset/microfin-redis", say)
    if platform.strimzi:
        _wait(wanted, "kafka/microfin", say)
        for user in ("worker", "api", "audit", "administrator", "trim"):
            _wait(wanted, f"kafkauser/microfin-{user}", say)


def install_application(wanted: Wanted, platform: Platform, say: Say) -> None:
    """Install the application and wait until every partition has its worker."""
    say(f"installing microfin in {wanted.namespace}: migrations first")
    values = merged(application_values(wanted, platform), wanted.application)
    _install("microfin", wanted.namespace, values, (wanted.size,))
    _wait(wanted, "mfc/microfin", say)
    _rolled_out(wanted, "deployment/microfin-api", say)


def operator_values(wanted: Wanted, platform: Platform, served: set[str]) -> dict[str, Any]:
    """Return microfin-operator's values. `served` are the namespaces of the existing banks."""
    kafkas = set() if platform.kafka is None else {platform.kafka.namespace}
    namespaces = sorted({wanted.namespace, *served, *kafkas})
    return {"image": {"tag": wanted.tag}, "namespaces": namespaces}


def _served() -> set[str]:
    """Return the namespaces that have a MicrofinCluster: the operator must still serve them when
    a second bank is installed."""
    if not exists("crd", _DEFINITION):
        return set()
    path = "jsonpath={.items[*].metadata.namespace}"
    return set(kubectl("get", "mfc", "-A", "-o", path).split())


def data_values(wanted: Wanted, platform: Platform) -> dict[str, Any]:
    """Return microfin-data's values."""
    values: dict[str, Any] = {
        "kafka": {"enabled": platform.strimzi, "topic": wanted.topic},
        "postgres": {"shards": wanted.shards},
    }
    if not platform.prometheus_operator:
        values["metrics"] = {"podMonitors": _OFF, "rules": _OFF}
    return values


def application_values(wanted: Wanted, platform: Platform) -> dict[str, Any]:
    """Return microfin's values."""
    values: dict[str, Any] = {
        "image": {"tag": wanted.tag},
        "postgres": {"shards": wanted.shards},
        "topic": {"name": wanted.topic},
        "networkPolicy": {"operator": [_operator_peer(wanted)]},
    }
    if platform.ingress_class:
        values["ingress"] = {
            "enabled": True, "className": platform.ingress_class, "host": wanted.host,
            "tlsSecret": "",
        }  # fmt: skip
    if not platform.prometheus_operator:
        values["monitoring"] = {"serviceMonitor": _OFF, "podMonitor": _OFF, "rules": _OFF}
    if platform.kafka is not None:
        values = merged(values, _existing_kafka(platform.kafka))
    return values


def _existing_kafka(kafka: ExistingKafka) -> dict[str, Any]:
    """Return microfin's values for a Kafka outside the bank's namespace, without TLS."""
    peer = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": kafka.namespace}}}
    return {
        "kafka": {"bootstrap": kafka.bootstrap, "tls": False},
        "topic": {"replicas": 1, "strimzi": {"cluster": kafka.name, "namespace": kafka.namespace}},
        "networkPolicy": {"kafka": [peer]},
    }


def _operator_peer(wanted: Wanted) -> dict[str, Any]:
    namespace = {"kubernetes.io/metadata.name": wanted.operator_namespace}
    return {
        "namespaceSelector": {"matchLabels": namespace},
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": "microfin-operator"}},
    }


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Return `base` merged with `over`, whose values win, key by key."""
    both = {
        name: merged(base[name], value)
        if isinstance(value, dict) and isinstance(base.get(name), dict)
        else value
        for name, value in over.items()
    }
    return base | both


def _install(
    chart: str,
    namespace: str,
    values: dict[str, Any],
    sizes: tuple[str, ...],
    release: str = "",
) -> None:
    files = [
        argument
        for size in sizes
        if (ROOT / f"charts/{chart}/values-{size}.yaml").is_file()
        for argument in ("--values", f"charts/{chart}/values-{size}.yaml")
    ]
    # Without --wait: the callers wait for each object by name, and say so.
    place = ("upgrade", "--install", release or chart, f"charts/{chart}", "--namespace", namespace)
    _with_values((*place, *files), values)


def _with_values(arguments: tuple[str, ...], values: dict[str, Any]) -> None:
    with NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as file:
        yaml.safe_dump(values, file)
        file.flush()
        helm(*arguments, "--values", file.name, "--timeout", "15m")


def _wait(wanted: Wanted, what: str, say: Say) -> None:
    say(f"waiting for {what}")
    kubectl("-n", wanted.namespace, "wait", "--for=condition=Ready", what, "--timeout=600s")


def _rolled_out(wanted: Wanted, what: str, say: Say) -> None:
    say(f"waiting for {what}")
    _wait_for_existence(wanted, what)
    kubectl("-n", wanted.namespace, "rollout", "status", what, "--timeout=600s")


def _wait_for_existence(wanted: Wanted, what: str) -> None:
    kubectl("-n", wanted.namespace, "wait", "--for=create", what, "--timeout=180s")
