"""Specs of MicrofinClusters: which the API server takes, and which it refuses with what words."""

import copy
from typing import Any

DIGEST = "@sha256:" + "a" * 64


def valid(namespace: str, name: str = "bank") -> dict[str, Any]:
    """Return a cluster as one writes it."""
    return {
        "apiVersion": "microfin.io/v1alpha1",
        "kind": "MicrofinCluster",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "partitions": 6,
            "shards": 2,
            "topic": {
                "name": "microfin.commands",
                "strimzi": {"cluster": "kafka", "namespace": "data"},
                "replicas": 3,
            },
            "worker": {
                "image": "ghcr.io/microfin/worker:1.0.0",
                "envFrom": [{"secretRef": {"name": "microfin-worker"}}],
            },
        },
    }


def with_change(item: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Return `item` with the field at `path` set to `value`, or taken away by None."""
    changed = copy.deepcopy(item)
    *parents, last = path.split("/")
    place = changed
    for name in parents:
        place = place.setdefault(name, {})
    if value is None:
        place.pop(last, None)
    else:
        place[last] = value
    return changed


TOPIC = "spec/topic"
WORKER = "spec/worker"
POD = "spec/worker/podTemplate/spec"
BOOTSTRAP = {"name": "microfin.commands", "bootstrap": {"servers": "kafka-0:9092,kafka-1:9092"}}

TAKEN: dict[str, tuple[str, Any]] = {
    "the least partitions": ("spec", {"partitions": 1, "shards": 1}),
    "the most partitions": ("spec/partitions", 1000),
    "the default partitions of two shards": ("spec", {"partitions": 3, "shards": 2}),
    "the most shards": ("spec", {"partitions": 64, "shards": 64}),
    "a longer topic name": (f"{TOPIC}/name", "ledger.commands-2"),
    "bootstrap": (TOPIC, BOOTSTRAP),
    "bootstrap with a name that only Kafka allows": (TOPIC, {**BOOTSTRAP, "name": "Bank_Commands"}),
    "one replica": (f"{TOPIC}/replicas", 1),
    "seven replicas": (f"{TOPIC}/replicas", 7),
    "a setting of the topic": (f"{TOPIC}/config", {"segment.bytes": "1048576"}),
    "settings as microfin sets them": (
        f"{TOPIC}/config",
        {
            "retention.ms": "-1",
            "retention.bytes": "-1",
            "cleanup.policy": "delete",
            "message.timestamp.type": "LogAppendTime",
            "unclean.leader.election.enable": "false",
            "min.insync.replicas": "3",
        },
    ),
    "an image with a registry's port": (f"{WORKER}/image", "registry:5000/microfin/worker:1"),
    "an image by digest": (f"{WORKER}/image", f"ghcr.io/microfin/worker{DIGEST}"),
    "an image by tag and digest": (f"{WORKER}/image", f"ghcr.io/microfin/worker:1.0{DIGEST}"),
    "a pull policy": (f"{WORKER}/imagePullPolicy", "Always"),
    "a ConfigMap with a prefix": (
        f"{WORKER}/envFrom",
        [{"configMapRef": {"name": "settings"}, "prefix": "MICROFIN_"}],
    ),
    "resources": (
        f"{WORKER}/resources",
        {"requests": {"cpu": "500m", "memory": "256Mi"}, "limits": {"cpu": "1", "memory": "256Mi"}},
    ),
    "the least grace": (f"{WORKER}/terminationGracePeriodSeconds", 10),
    "labels of one's own": (
        f"{WORKER}/podTemplate/metadata",
        {"labels": {"team": "money"}, "annotations": {"a": "b"}},
    ),
    "the rest of a pod": (
        POD,
        {
            "restartPolicy": "Always",
            "hostNetwork": False,
            "serviceAccountName": "bank",
            "automountServiceAccountToken": False,
            "priorityClassName": "money",
            "securityContext": {"fsGroup": 2000, "seccompProfile": {"type": "RuntimeDefault"}},
            "nodeSelector": {"disk": "ssd"},
            "volumes": [
                {"name": "ca", "secret": {"secretName": "ca"}},
                {"name": "all", "projected": {"sources": [{"secret": {"name": "ca"}}]}},
            ],
            "initContainers": [{"name": "before", "image": "x:1"}],
            "containers": [
                {"name": "worker", "env": [{"name": "A", "value": "b"}]},
                {
                    "name": "beside",
                    "image": "proxy:1",
                    "command": ["proxy"],
                    "ports": [{"containerPort": 9000}],
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "capabilities": {"drop": ["ALL"]},
                        "runAsUser": 1000,
                    },
                },
            ],
        },
    ),
}
"""What is taken: for each rule a case that passes."""

REFUSED: dict[str, tuple[str, Any, str]] = {
    "no partitions": ("spec/partitions", 0, "start with 3 and grow later"),
    "negative partitions": ("spec/partitions", -3, "between 1 and 1000"),
    "too many partitions": ("spec/partitions", 1002, "between 1 and 1000"),
    "partitions that shards do not divide": (
        "spec/partitions",
        7,
        "set partitions to the next multiple",
    ),
    "no shards": ("spec/shards", 0, "the number of PostgreSQL clusters"),
    "too many shards": ("spec/shards", 65, "between 1 and 64"),
    "a topic name with a space": (f"{TOPIC}/name", "my topic", "use microfin.commands"),
    "a topic name of dots": (f"{TOPIC}/name", "..", "as Kafka requires"),
    "a topic name that is too long": (f"{TOPIC}/name", "a" * 250, "1 to 249 letters"),
    "a topic name that no KafkaTopic can have": (
        f"{TOPIC}/name",
        "Bank_Commands",
        "the KafkaTopic has the same name",
    ),
    "neither strimzi nor bootstrap": (f"{TOPIC}/strimzi", None, "give exactly one of"),
    "both strimzi and bootstrap": (f"{TOPIC}/bootstrap", {"servers": "k:9092"}, "exactly one of"),
    "strimzi without a cluster": (
        f"{TOPIC}/strimzi/cluster",
        None,
        "needs cluster and namespace",
    ),
    "strimzi without a namespace": (
        f"{TOPIC}/strimzi/namespace",
        None,
        "kubectl get kafka -A",
    ),
    "a Kafka that cannot be": (f"{TOPIC}/strimzi/cluster", "My Kafka", "name of a Kafka resource"),
    "a namespace that cannot be": (
        f"{TOPIC}/strimzi/namespace",
        "data.prod",
        "at most 63 lower case letters",
    ),
    "bootstrap without servers": (TOPIC, {"bootstrap": {}}, "host:port of some brokers"),
    "servers without a port": (TOPIC, {"bootstrap": {"servers": "kafka"}}, "such as kafka-0"),
    "servers with spaces": (
        TOPIC,
        {"bootstrap": {"servers": "a:9092, b:9092"}},
        "without spaces",
    ),
    "no replicas": (f"{TOPIC}/replicas", 0, "use 3, or 1 if there is only one broker"),
    "too many replicas": (f"{TOPIC}/replicas", 8, "between 1 and 7"),
    "retention by age": (f"{TOPIC}/config", {"retention.ms": "604800000"}, "microfin log trim"),
    "retention by size": (f"{TOPIC}/config", {"retention.bytes": "1000"}, "microfin log trim"),
    "compaction": (f"{TOPIC}/config", {"cleanup.policy": "compact"}, "compaction drops commands"),
    "time of creation": (
        f"{TOPIC}/config",
        {"message.timestamp.type": "CreateTime"},
        'must be "LogAppendTime"',
    ),
    "unclean election": (
        f"{TOPIC}/config",
        {"unclean.leader.election.enable": "true"},
        "loses acknowledged commands",
    ),
    "more in sync than there are": (
        f"{TOPIC}/config",
        {"min.insync.replicas": "4"},
        "lower it or raise topic.replicas",
    ),
    "in sync that is no number": (
        f"{TOPIC}/config",
        {"min.insync.replicas": "all"},
        "as a string",
    ),
    "no image": (f"{WORKER}/image", "", "an image name with a tag or a digest"),
    "an image with a space": (f"{WORKER}/image", "worker :1", "such as ghcr.io/microfin"),
    "an image without a tag": (f"{WORKER}/image", "ghcr.io/microfin/worker", "which version runs"),
    "an image of a port without a tag": (
        f"{WORKER}/image",
        "registry:5000/worker",
        "which version runs",
    ),
    "the latest image": (f"{WORKER}/image", "worker:latest", "Name a version"),
    "an unknown pull policy": (f"{WORKER}/imagePullPolicy", "Sometimes", "Always, IfNotPresent"),
    "no settings": (f"{WORKER}/envFrom", None, "must name at least one Secret or ConfigMap"),
    "an empty list of settings": (f"{WORKER}/envFrom", [], "secretRef: {name: microfin-worker}"),
    "settings from nowhere": (f"{WORKER}/envFrom", [{}], "exactly one of secretRef"),
    "settings from two places": (
        f"{WORKER}/envFrom",
        [{"secretRef": {"name": "a"}, "configMapRef": {"name": "b"}}],
        "exactly one of secretRef",
    ),
    "a Secret without a name": (
        f"{WORKER}/envFrom",
        [{"secretRef": {}}],
        "the name of a Secret in this namespace",
    ),
    "a ConfigMap without a name": (
        f"{WORKER}/envFrom",
        [{"configMapRef": {"name": ""}}],
        "the name of a ConfigMap in this namespace",
    ),
    "a prefix that cannot be": (
        f"{WORKER}/envFrom",
        [{"secretRef": {"name": "a"}, "prefix": "my-"}],
        "such as MICROFIN_",
    ),
    "requests that are no quantities": (
        f"{WORKER}/resources",
        {"requests": {"cpu": "much"}},
        'cpu "500m" and memory 256Mi',
    ),
    "limits that are no quantities": (
        f"{WORKER}/resources",
        {"limits": {"memory": "1 GB"}},
        'cpu "1" and memory 512Mi',
    ),
    "a request above its limit": (
        f"{WORKER}/resources",
        {"requests": {"memory": "1Gi"}, "limits": {"memory": "512Mi"}},
        "raise the limit or lower the request",
    ),
    "too little grace": (f"{WORKER}/terminationGracePeriodSeconds", 5, "use 30"),
    "too much grace": (f"{WORKER}/terminationGracePeriodSeconds", 601, "between 10 and 600"),
    "the operator's labels": (
        f"{WORKER}/podTemplate/metadata",
        {"labels": {"microfin.io/cluster": "x"}},
        "Use labels of your own",
    ),
    "a pod that ends": (POD, {"restartPolicy": "Never"}, "always has its worker"),
    "the host's network": (POD, {"hostNetwork": True}, "restricted Pod Security Standard"),
    "the host's processes": (POD, {"hostPID": True}, "restricted Pod Security Standard"),
    "another account": (
        POD,
        {"serviceAccountName": "deployer"},
        "can only be the name of this MicrofinCluster",
    ),
    "another account by its old name": (
        POD,
        {"serviceAccount": "x"},
        "workers have no other identity",
    ),
    "a token of the API server": (
        POD,
        {"automountServiceAccountToken": True},
        "does not ask the API server",
    ),
    "a token as a volume": (
        POD,
        {"volumes": [{"name": "t", "projected": {"sources": [{"serviceAccountToken": {}}]}}]},
        "must not project a serviceAccountToken",
    ),
    "a folder of the node": (
        POD,
        {"volumes": [{"name": "h", "hostPath": {"path": "/"}}]},
        "must not have a hostPath",
    ),
    "a node": (POD, {"nodeName": "n"}, "use nodeSelector or affinity"),
    "the system's priority": (
        POD,
        {"priorityClassName": "system-node-critical"},
        "use a PriorityClass of your own",
    ),
    "ephemeral containers": (POD, {"ephemeralContainers": [{"name": "e"}]}, "adds them to a pod"),
    "root for all containers": (
        POD,
        {"securityContext": {"runAsNonRoot": False}},
        "a user other than root",
    ),
    "no seccomp": (
        POD,
        {"securityContext": {"seccompProfile": {"type": "Unconfined"}}},
        "and no more",
    ),
    "a sysctl": (POD, {"securityContext": {"sysctls": [{"name": "a"}]}}, "and no more"),
    "a privileged worker": (
        POD,
        {"containers": [{"name": "worker", "securityContext": {"privileged": True}}]},
        "must not be privileged",
    ),
    "a capability": (
        POD,
        {
            "initContainers": [
                {"name": "i", "securityContext": {"capabilities": {"add": ["NET_ADMIN"]}}}
            ]
        },
        "or add capabilities",
    ),
    "a port of the node": (
        POD,
        {"containers": [{"name": "worker", "ports": [{"containerPort": 1, "hostPort": 1}]}]},
        "must not use a hostPort",
    ),
    "a host name": (POD, {"hostname": "x"}, "knows its partition from its host name"),
    "the worker's image in the template": (
        POD,
        {"containers": [{"name": "worker", "image": "x:1"}]},
        "set worker.image instead",
    ),
    "the worker's command": (
        POD,
        {"containers": [{"name": "worker", "command": ["x"]}]},
        "set worker.image instead",
    ),
    "a container without a name": (
        POD,
        {"containers": [{"image": "x:1"}]},
        'worker\'s is "worker"',
    ),
}
"""What is refused, and part of what the user is told to do."""

REFUSED_NAMES = {
    "a" * 41: "Choose a shorter name",
    "my.bank": 'Choose a name such as "microfin"',
    "1bank": "must begin with a letter",
}

REFUSED_CHANGES: dict[str, tuple[str, Any, str]] = {
    "fewer partitions": ("spec/partitions", 4, "keep the number that `kubectl get mfc` shows"),
    "other shards": ("spec/shards", 3, "set it back; for another number"),
    "another topic": (f"{TOPIC}/name", "other.commands", "Set it back"),
    "another Kafka": (f"{TOPIC}/strimzi/cluster", "other", "the commands are in Kafka kafka"),
    "another namespace": (f"{TOPIC}/strimzi/namespace", "other", "the KafkaTopic is in data"),
}

TAKEN_CHANGES: dict[str, tuple[str, Any]] = {
    "more partitions": ("spec/partitions", 8),
    "another image": (f"{WORKER}/image", "ghcr.io/microfin/worker:1.1.0"),
    "other replicas with Strimzi": (f"{TOPIC}/replicas", 5),
    "a pause": ("spec/paused", True),
}
