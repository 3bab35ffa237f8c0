"""The pods of workers and of administrative Jobs: the operator's fields merged with the user's."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from microfin_operator.custom_resource import Administration, Cluster
from microfin_operator.kinds import KubernetesObject
from microfin_operator.names import (
    ADMINISTRATION,
    WORKER,
    WORKER_PORT,
    labels,
    worker_selector,
)

_MERGE_KEYS: Final = {"volumeMounts": "mountPath", "volumeDevices": "devicePath"}
"""The field that identifies the items of a list; `name` for all other lists."""

NAMED_LISTS: Final = frozenset(
    ("containers", "initContainers", "volumes", "volumeMounts", "volumeDevices", "env", "ports",
     "imagePullSecrets")
)  # fmt: skip
"""The lists of a pod that are merged by name."""


def merge(base: Any, override: Any, field: str = "") -> Any:
    """Return `base` merged with `override`, as `kubectl patch` would merge them.

    Objects are merged field by field, lists of named items by name; every other list is replaced,
    and null removes a field.
    """
    if isinstance(base, Mapping) and isinstance(override, Mapping):
        merged = {
            name: merge(base.get(name), value, name)
            for name, value in override.items()
            if value is not None
        }
        return {name: it for name, it in base.items() if name not in override} | merged
    if field in NAMED_LISTS and isinstance(base, Sequence) and isinstance(override, Sequence):
        return _merge_named(base, override, _MERGE_KEYS.get(field, "name"))
    return override


def _merge_named(
    base: Sequence[Mapping[str, Any]], override: Sequence[Mapping[str, Any]], key: str
) -> list[Any]:
    theirs = {item.get(key): item for item in override}
    merged = [merge(item, theirs.get(item.get(key), {})) for item in base]
    known = {item.get(key) for item in base}
    return merged + [item for item in override if item.get(key) not in known]


def worker_template(cluster: Cluster) -> KubernetesObject:
    """Return the workers' pod template: the operator's, the user's over it, then fixed fields."""
    ours = _common(cluster, WORKER)
    ours["spec"] |= {
        "terminationGracePeriodSeconds": cluster.spec.worker.termination_grace_period_seconds,
        "topologySpreadConstraints": _spread(cluster.name),
    }
    ours["spec"]["containers"][0] |= {
        "ports": [{"name": "health", "containerPort": WORKER_PORT, "protocol": "TCP"}],
        "startupProbe": _probe("/healthz", periodSeconds=1, failureThreshold=120),
        "livenessProbe": _probe("/healthz", periodSeconds=10, failureThreshold=6),
        "readinessProbe": _probe("/readyz", periodSeconds=2, failureThreshold=2),
    }
    return _with_theirs(cluster, ours, WORKER)


def administration_template(cluster: Cluster, command: list[str]) -> KubernetesObject:
    """Return the pod template of a Job that runs `command` with the workers' own settings."""
    ours = _common(cluster, ADMINISTRATION)
    template = _with_theirs(cluster, ours, ADMINISTRATION)
    spec = template["spec"]
    # Other containers next to the worker would prevent the Job from ending.
    worker = next(it for it in spec["containers"] if it["name"] == WORKER)
    for field in ("ports", "startupProbe", "livenessProbe", "readinessProbe", "lifecycle"):
        worker.pop(field, None)
    worker |= {"command": command, "terminationMessagePolicy": "FallbackToLogsOnError"}
    own = cluster.spec.administration
    if own.resources:
        worker["resources"] = own.resources
    spec |= {"containers": [worker], "restartPolicy": "Never", **_placement(own)}
    spec.pop("topologySpreadConstraints", None)
    return template


def _placement(own: Administration) -> dict[str, Any]:
    """Return the fields by which a Job's pod is placed differently from the workers'."""
    fields = {
        "nodeSelector": own.node_selector,
        "tolerations": own.tolerations,
        "affinity": own.affinity,
        "priorityClassName": own.priority_class_name,
    }
    return {name: value for name, value in fields.items() if value}


def _common(cluster: Cluster, component: str) -> KubernetesObject:
    """Return the fields that a worker's pod and a Job's pod have in common."""
    worker = cluster.spec.worker
    container: dict[str, Any] = {
        "name": WORKER,
        "imagePullPolicy": worker.image_pull_policy,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": [{"name": "temporary", "mountPath": "/tmp"}],  # noqa: S108 - in the pod
    }
    if worker.env_from:
        container["envFrom"] = worker.env_from
    if worker.resources:
        container["resources"] = worker.resources
    return {
        "metadata": {"labels": labels(cluster.name, component)},
        "spec": {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": {
                "runAsNonRoot": True,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
            "volumes": [{"name": "temporary", "emptyDir": {}}],
        },
    }


def _with_theirs(cluster: Cluster, ours: KubernetesObject, component: str) -> KubernetesObject:
    """Merge the user's template over the operator's, and the fields it relies on over both."""
    environment = [{"name": "MICROFIN_TOPIC", "value": cluster.spec.topic.name}]
    if cluster.spec.topic.bootstrap is not None:
        environment.append(
            {"name": "MICROFIN_KAFKA", "value": cluster.spec.topic.bootstrap.servers}
        )
    if component == WORKER:
        environment += [
            # All addresses of the pod, IPv4 and IPv6.
            {"name": "MICROFIN_WORKER_HOST", "value": ""},
            {"name": "MICROFIN_WORKER_PORT", "value": str(WORKER_PORT)},
        ]
    needed = {
        "metadata": {"labels": labels(cluster.name, component)},
        "spec": {
            "containers": [{"name": WORKER, "image": cluster.spec.worker.image, "env": environment}]
        },
    }
    merged: KubernetesObject = merge(merge(ours, cluster.spec.worker.pod_template), needed)
    return merged


def _probe(path: str, **timing: int) -> dict[str, Any]:
    return {"httpGet": {"path": path, "port": "health"}, "timeoutSeconds": 5, **timing}


def _spread(cluster: str) -> list[dict[str, Any]]:
    """Spread the workers over zones and nodes if there are several; never keep one waiting."""
    return [
        {
            "maxSkew": 1,
            "topologyKey": key,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": worker_selector(cluster)},
        }
        for key in ("topology.kubernetes.io/zone", "kubernetes.io/hostname")
    ]
