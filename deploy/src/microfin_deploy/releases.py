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
_USERS = ("worker", "api", "audit", "administrator", "trim")
"""What the names of the KafkaUsers of the chart microfin-data end with."""

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
        shards = f"clusters.postgresql.cnpg.io/microfin-postgres-{shard}"
        _wait(shards, wanted.namespace, say)
    for shard in range(wanted.shards):
        _rolled_out(wanted, f"deployment/microfin-pooler-{shard}", say)
    _rolled_out(wanted, "statefulset/microfin-redis", say)
    if platform.strimzi:
        _wait("kafka/microfin", wanted.namespace, say)
    for user in _users(wanted, platform).values():
        _wait(f"kafkauser/{user}", _kafkas_namespace(wanted, platform), say)


def _users(wanted: Wanted, platform: Platform) -> dict[str, str]:
    """Return the KafkaUsers by the Secrets of the bank; in another namespace they say whose."""
    prefix = "" if platform.strimzi else f"{wanted.namespace}-"
    return {it: f"{prefix}{it}" for it in map("microfin-{}".format, _USERS)}


def _kafkas_namespace(wanted: Wanted, platform: Platform) -> str:
    return wanted.namespace if platform.kafka is None else platform.kafka.namespace


def install_application(wanted: Wanted, platform: Platform, say: Say) -> None:
    """Install the application and wait until every partition has its worker."""
    say(f"installing microfin in {wanted.namespace}: migrations first")
    values = merged(application_values(wanted, platform), wanted.application)
    _install("microfin", wanted.namespace, values, (wanted.size,))
    _wait("mfc/microfin", wanted.namespace, say)
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
    if platform.kafka is not None:
        existing = {"name": platform.kafka.name, "namespace": platform.kafka.namespace}
        values["kafka"]["existing"] = existing
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
        values = merged(values, _existing_kafka(platform.kafka, _users(wanted, platform)))
    return values


def _existing_kafka(kafka: ExistingKafka, users: dict[str, str]) -> dict[str, Any]:
    """Return microfin's values for a Kafka outside the bank's namespace."""
    peer = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": kafka.namespace}}}
    return {
        "kafka": {"bootstrap": kafka.bootstrap},
        "kafkaSecrets": {
            "namespace": kafka.namespace,
            "copies": {"microfin-cluster-ca-cert": kafka.authority, **users},
        },
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


def _wait(what: str, namespace: str, say: Say) -> None:
    say(f"waiting for {what}")
    kubectl("-n", namespace, "wait", "--for=condition=Ready", what, "--timeout=600s")


def _rolled_out(wanted: Wanted, what: str, say: Say) -> None:
    say(f"waiting for {what}")
    _wait_for_existence(wanted, what)
    kubectl("-n", wanted.namespace, "rollout", "status", what, "--timeout=600s")


def _wait_for_existence(wanted: Wanted, what: str) -> None:
    kubectl("-n", wanted.namespace, "wait", "--for=create", what, "--timeout=180s")
