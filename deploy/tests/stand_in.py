"""A cluster in a file: `kubectl` and `helm` as far as `make deploy` and `make undeploy` use them.

Run as a program under either name. Objects have the labels, names and finalizers that the vendors
give them. Selectors, finalizers and the deletion of namespaces work as in Kubernetes. Strimzi's
Topic Operator removes its finalizer only while the Kafka of its topics exists, as its pod does, and
while nobody broke it.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any, Final

Item = dict[str, Any]

PLURALS: Final = {
    "crd": "CustomResourceDefinition",
    "deployments": "Deployment",
    "deployment": "Deployment",
    "pods": "Pod",
    "namespace": "Namespace",
    "ingressclasses": "IngressClass",
    "ingressclass": "IngressClass",
    "kafkas.kafka.strimzi.io": "Kafka",
    "kafka": "Kafka",
    "kafkatopics.kafka.strimzi.io": "KafkaTopic",
    "kafkatopic": "KafkaTopic",
    "mfc": "MicrofinCluster",
}
DEFINED_BY: Final = {
    "Kafka": "kafkas.kafka.strimzi.io",
    "KafkaTopic": "kafkatopics.kafka.strimzi.io",
    "MicrofinCluster": "microfinclusters.microfin.io",
}
CLUSTER_WIDE: Final = {"CustomResourceDefinition", "Namespace", "IngressClass"}
TOPIC_OPERATOR: Final = "strimzi.io/topic-operator"


def item(kind: str, name: str, namespace: str = "", **metadata: Any) -> Item:
    """Return an object."""
    place = {"namespace": namespace} if namespace else {}
    return {"kind": kind, "metadata": {"name": name, **place, **metadata}}


def fail(message: str) -> None:
    sys.exit(message)


class Cluster:
    """The objects, which each call reads from the file and writes back."""

    def __init__(self, file: Path) -> None:
        self.file = file
        read = json.loads(file.read_text(encoding="utf-8"))
        self.items: list[Item] = read["items"]
        self.releases: dict[str, list[list[str]]] = read["releases"]
        self.broken: list[str] = read["broken"]

    def write(self) -> None:
        kept = {"items": self.items, "releases": self.releases, "broken": self.broken}
        self.file.write_text(json.dumps(kept), encoding="utf-8")

    def find(self, kind: str, name: str = "", namespace: str = "") -> list[Item]:
        return [
            it
            for it in self.items
            if it["kind"] == kind
            and name in ("", it["metadata"]["name"])
            and namespace in ("", it["metadata"].get("namespace", ""))
        ]

    def delete(self, found: list[Item], *, waits: bool = False) -> None:
        for it in found:
            it["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        self.act()
        if waits and any(it in self.items for it in found):
            fail("kubectl would wait for ever, or until its time limit")

    def act(self) -> None:
        """Do what the controllers would do meanwhile."""
        for space in self.find("Namespace"):
            if "deletionTimestamp" in space["metadata"]:
                self._empty(space)
        for topic in self.find("KafkaTopic"):
            self._topic_operator(topic)
        for ledger in self.find("MicrofinCluster"):
            self._microfins_operator(ledger)
        self.items = [
            it
            for it in self.items
            if "deletionTimestamp" not in it["metadata"] or it["metadata"].get("finalizers")
        ]

    def _empty(self, space: Item) -> None:
        name = space["metadata"]["name"]
        inside = [it for it in self.items if it["metadata"].get("namespace") == name]
        # Nobody says which is deleted first: the Kafka, as it happens.
        gone = {it["metadata"]["name"] for it in inside if it["kind"] == "Kafka"}
        for it in inside:
            it["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        self.items = [
            it for it in self.items if it["kind"] != "Kafka" or it["metadata"]["name"] not in gone
        ]
        left = [it for it in inside if it["metadata"].get("finalizers")]
        space["metadata"]["finalizers"] = ["kubernetes"] if left else []
        message = f"Some content in the namespace has finalizers remaining: {TOPIC_OPERATOR}"
        condition = {"type": "NamespaceFinalizersRemaining", "status": "True", "message": message}
        space["status"] = {"conditions": [condition]}

    def _topic_operator(self, topic: Item) -> None:
        metadata = topic["metadata"]
        kafka = metadata["labels"]["strimzi.io/cluster"]
        runs = self.find("Kafka", kafka, metadata["namespace"])
        if runs and "topic operator" not in self.broken and "deletionTimestamp" in metadata:
            managed = metadata.get("annotations", {}).get("strimzi.io/managed") != "false"
            if managed and "deletion of topics" in self.broken:
                message = "Topic deletion is disabled."
                topic["status"] = {"conditions": [{"type": "Ready", "message": message}]}
                return
            metadata["finalizers"] = []

    def _microfins_operator(self, ledger: Item) -> None:
        """Make a missing topic again, as microfin's operator does."""
        where = ledger["spec"]["topic"]
        space = where["strimzi"]["namespace"]
        if self.find("KafkaTopic", where["name"], space):
            return
        self.items.append(
            item(
                "KafkaTopic", where["name"], space, finalizers=[TOPIC_OPERATOR],
                labels={"strimzi.io/cluster": where["strimzi"]["cluster"]},
            )
        )  # fmt: skip


def matches(it: Item, selector: str) -> bool:
    """Return whether an object has the labels of `a=b`, `a=b,c=d` or `a in (b, c)`."""
    labels = it["metadata"].get("labels", {})
    name, several, values = selector.partition(" in ")
    if several:
        return labels.get(name) in values.strip("()").split(", ")
    pairs = (part.partition("=") for part in selector.split(","))
    return all(labels.get(name) == value for name, _, value in pairs)


def kind_of(cluster: Cluster, word: str) -> str:
    kind = PLURALS[word]
    if kind in DEFINED_BY and not cluster.find("CustomResourceDefinition", DEFINED_BY[kind]):
        fail(f'error: the server doesn\'t have a resource type "{word.partition(".")[0]}"')
    return kind


def selected(cluster: Cluster, options: argparse.Namespace, words: list[str]) -> list[Item]:
    """Return the objects that `KIND`, `KIND NAME` or `KIND/NAME …` name."""
    if "/" in words[0]:
        pairs = [tuple(word.split("/", 1)) for word in words]
    else:
        pairs = [(words[0], name) for name in words[1:]] or [(words[0], "")]
    found = []
    for word, name in pairs:
        kind = kind_of(cluster, word)
        space = "" if options.all or kind in CLUSTER_WIDE else options.namespace
        found += cluster.find(kind, name, space)
    return [it for it in found if not options.selector or matches(it, options.selector)]


def show(found: list[Item], options: argparse.Namespace, words: list[str]) -> None:
    if options.output == "name":
        print(*(f"{it['kind'].lower()}/{it['metadata']['name']}" for it in found), sep="\n")
    elif "/" in words[0] or len(words) > 1:
        print(*(json.dumps(it) for it in found))
    else:
        print(json.dumps({"kind": "List", "items": found}))


def options_of(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("-n", "--namespace", default="default")
    parser.add_argument("-A", dest="all", action="store_true")
    parser.add_argument("-l", dest="selector", default="")
    parser.add_argument("-o", dest="output", default="")
    parser.add_argument("-p", dest="patch", default="")
    for without_effect in ("--for", "--timeout", "--type", "--wait"):
        parser.add_argument(without_effect)
    for without_effect in ("--ignore-not-found", "--overwrite", "--client"):
        parser.add_argument(without_effect, action="store_true")
    parser.add_argument("--request-timeout")
    parser.add_argument("words", nargs="+")
    return parser.parse_intermixed_args(arguments)


def kubectl(cluster: Cluster, arguments: list[str]) -> None:
    options = options_of(arguments)
    verb, *words = options.words
    cluster.act()
    if verb == "version":
        return
    if "api server" in cluster.broken:
        fail("Unable to connect to the server: dial tcp: i/o timeout")
    if verb == "annotate":
        name, _, value = words.pop().partition("=")
        options.patch = json.dumps({"metadata": {"annotations": {name: value}}})
    found = selected(cluster, options, words)
    if verb == "get":
        show(found, options, words)
    elif verb == "delete":
        cluster.delete(found, waits=options.wait != "false")
    elif verb in ("annotate", "patch"):
        for it in found:
            it["metadata"] |= json.loads(options.patch)["metadata"]
    elif verb != "wait":
        fail(f"unknown: kubectl {verb}")
    elif not found:
        fail("error: no matching resources found")


def helm(cluster: Cluster, arguments: list[str]) -> None:
    verb, release = arguments[:2]
    if verb != "uninstall":
        fail(f"unknown: helm {' '.join(arguments)}")
    for kind, name, namespace in cluster.releases.pop(release, []):
        cluster.delete(cluster.find(kind, name, namespace))


if __name__ == "__main__":
    stored = Cluster(Path(os.environ["STAND_IN_CLUSTER"]))
    program = {"kubectl": kubectl, "helm": helm}[Path(sys.argv[0]).name]
    try:
        program(stored, sys.argv[1:])
    finally:
        stored.write()
