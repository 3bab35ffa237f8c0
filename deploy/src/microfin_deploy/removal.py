"""Removes a bank with its data (`make undeploy`).

The order matters. A KafkaTopic has the finalizer of Strimzi's Topic Operator, which runs only
while the Kafka exists, so topics go before Kafka. The bank goes before its topic, because
microfin's operator makes a missing topic again (ADR 35).
"""

import json
from typing import Any, Final

from microfin_deploy.commands import (
    DeployError,
    Say,
    exists,
    helm,
    kubectl,
    listed,
    wait_until_gone,
)

_DEFINITION: Final = "microfinclusters.microfin.io"
_TOPICS: Final = "kafkatopics.kafka.strimzi.io"
_KAFKAS: Final = "kafkas.kafka.strimzi.io"
_OWNER: Final = "microfin.io/owned-by"
"""The annotation by which microfin's operator marks a topic: namespace/name of the bank."""

_FINALIZER: Final = "strimzi.io/topic-operator"

Item = dict[str, Any]


def remove_bank(namespace: str, patience: float, say: Say) -> None:
    """Remove the bank, its topics, its data and its namespace. Safe to repeat.

    Each wait ends after `patience` seconds. Raises DeployError.
    """
    _uninstall("microfin", namespace, patience, say)
    for ledger in listed("mfc", "-n", namespace):
        _delete(f"mfc/{_name(ledger)}", namespace, patience, say)
    for topic in _topics(namespace):
        _remove_topic(topic, namespace, patience, say)
    _uninstall("microfin-data", namespace, patience, say)
    _remove_namespace(namespace, patience, say)


def remove_operator(namespace: str, patience: float, say: Say) -> None:
    """Remove the operator and its definition, unless it still has a bank. Raises DeployError."""
    ledgers = [f"{_namespace(it)}/{_name(it)}" for it in listed("mfc", "-A")]
    if ledgers:
        say(f"the operator stays, because it has other banks: {', '.join(ledgers)}")
        return
    _uninstall("microfin-operator", namespace, patience, say)
    _remove_namespace(namespace, patience, say)
    if exists("crd", _DEFINITION):
        _delete(f"crd/{_DEFINITION}", "", patience, say)


def _uninstall(release: str, namespace: str, patience: float, say: Say) -> None:
    say(f"uninstalling {release}, at most {patience:.0f} s: helm waits until its objects are gone")
    helm(
        *("uninstall", release, "--namespace", namespace, "--ignore-not-found"),
        *("--wait", "--timeout", f"{patience:.0f}s"),
    )


def _topics(namespace: str) -> list[Item]:
    """Return the topics in the bank's namespace, and those elsewhere that are the bank's."""
    return [
        topic
        for topic in listed(_TOPICS, "-A")
        if _namespace(topic) == namespace
        or topic["metadata"].get("annotations", {}).get(_OWNER, "").startswith(f"{namespace}/")
    ]


def _remove_topic(topic: Item, namespace: str, patience: float, say: Say) -> None:
    """Remove a topic while a Topic Operator can remove its finalizer.

    A topic in the bank's namespace goes together with its Kafka. So nothing is to be deleted in
    Kafka, which could refuse it (delete.topic.enable), and nobody misses the finalizer.
    """
    place, name = _namespace(topic), _name(topic)
    if place != namespace:
        _delete(f"{_TOPICS}/{name}", place, patience, say)
        return
    kubectl("-n", place, "annotate", f"{_TOPICS}/{name}", "strimzi.io/managed=false", "--overwrite")
    kafka = topic["metadata"].get("labels", {}).get("strimzi.io/cluster", "")
    if kafka and exists("-n", place, f"{_KAFKAS}/{kafka}"):
        try:
            _delete(f"{_TOPICS}/{name}", place, patience, say)
        except DeployError as error:
            say(f"{error} Removing its finalizer, as its Kafka goes, too")
        else:
            return
    _delete_without_finalizer(name, place, patience, say)


def _delete_without_finalizer(name: str, namespace: str, patience: float, say: Say) -> None:
    """Remove a topic whose Topic Operator does not run."""
    what = f"{_TOPICS}/{name}"
    for topic in listed("-n", namespace, what):
        others = [it for it in topic["metadata"].get("finalizers", []) if it != _FINALIZER]
        patch = json.dumps({"metadata": {"finalizers": others}})
        kubectl("-n", namespace, "patch", what, "--type=merge", "-p", patch)
        _delete(what, namespace, patience, say)


def _delete(what: str, namespace: str, patience: float, say: Say) -> None:
    """Delete an object and wait until it is gone. Raises DeployError."""
    place = ("-n", namespace) if namespace else ()
    say(f"deleting {what}" + (f" in {namespace}" if namespace else ""))
    kubectl(*place, "delete", what, "--ignore-not-found", "--wait=false")
    wait_until_gone(what, lambda: _why_left(listed(*place, what)), patience, say)


def _why_left(items: list[Item]) -> str:
    """Return why an object is still there; nothing if it is gone."""
    if not items:
        return ""
    (item,) = items
    finalizers = item["metadata"].get("finalizers", [])
    reasons = [f"It waits for who removes the finalizers {', '.join(finalizers)}."]
    if _FINALIZER in finalizers:
        reasons.append(
            "Strimzi's Topic Operator does that: check the pod whose name ends with "
            f"-entity-operator (kubectl -n {_namespace(item)} get pods)."
        )
    said = [it.get("message") for it in item.get("status", {}).get("conditions", [])]
    return " ".join([*(reasons if finalizers else []), *filter(None, said)]) or "It still exists."


def _remove_namespace(namespace: str, patience: float, say: Say) -> None:
    say(f"deleting namespace {namespace} with everything in it")
    kubectl("delete", "namespace", namespace, "--ignore-not-found", "--wait=false")
    what = f"namespace/{namespace}"
    wait_until_gone(what, lambda: _what_is_left(listed(what)), patience, say)


def _what_is_left(namespaces: list[Item]) -> str:
    """Return what Kubernetes says of the rest of a namespace; nothing if it is gone."""
    if not namespaces:
        return ""
    conditions = namespaces[0].get("status", {}).get("conditions", [])
    said = [it["message"] for it in conditions if it["status"] == "True" and "message" in it]
    return " ".join(said) or "Kubernetes deletes its content."


def _name(item: Item) -> str:
    return str(item["metadata"]["name"])


def _namespace(item: Item) -> str:
    return str(item["metadata"].get("namespace", ""))
