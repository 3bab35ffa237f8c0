"""What `worker.podTemplate` must not contain.

A user who may write a MicrofinCluster may lack the permission to create pods: the operator creates
them with its own permission. So it creates no pod that the restricted Pod Security Standard
forbids, none that uses the node's resources, and none under another identity (ADR 25). The
CustomResourceDefinition refuses what it can check; this module checks the whole merged template.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from microfin_operator.custom_resource import Cluster
from microfin_operator.kinds import KubernetesObject
from microfin_operator.names import WORKER
from microfin_operator.pod_template import NAMED_LISTS, worker_template

_VOLUMES: Final = frozenset(
    ("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim",
     "projected", "secret")
)  # fmt: skip
_PROFILES: Final = ("RuntimeDefault", "Localhost")
_CONTAINER_LISTS: Final = ("containers", "initContainers")
_HANDLERS: Final = ("livenessProbe", "readinessProbe", "startupProbe")
_APPARMOR: Final = "container.apparmor.security.beta.kubernetes.io/"
_SHOWN: Final = 5


def _is_missing_or(*allowed: Any) -> Callable[[Any], bool]:
    return lambda value: value is None or value in allowed


def _is_a_users_number(value: Any) -> bool:
    return value is None or (isinstance(value, int) and value > 0)


def _is_profile(value: Any) -> bool:
    return value is None or (isinstance(value, Mapping) and value.get("type") in _PROFILES)


def _only_drops(value: Any) -> bool:
    return value is None or (isinstance(value, Mapping) and not value.get("add"))


def _anything(_: Any) -> bool:
    return True


_POD_CONTEXT: Final[dict[str, Callable[[Any], bool]]] = {
    "runAsNonRoot": lambda value: value is True,
    "seccompProfile": lambda value: value is not None and _is_profile(value),
    "appArmorProfile": _is_profile,
    "runAsUser": _is_a_users_number,
    "runAsGroup": _anything,
    "fsGroup": _anything,
    "fsGroupChangePolicy": _anything,
    "supplementalGroups": _anything,
    "supplementalGroupsPolicy": _anything,
}
"""The allowed values of a pod's security context; other fields are refused."""

_CONTAINER_CONTEXT: Final[dict[str, Callable[[Any], bool]]] = {
    "allowPrivilegeEscalation": _is_missing_or(False),
    "privileged": _is_missing_or(False),
    "capabilities": _only_drops,
    "readOnlyRootFilesystem": _anything,
    "runAsNonRoot": _is_missing_or(True),
    "runAsUser": _is_a_users_number,
    "runAsGroup": _anything,
    "procMount": _is_missing_or("Default"),
    "seccompProfile": _is_profile,
    "appArmorProfile": _is_profile,
}

_WORKER_CONTEXT: Final[dict[str, Callable[[Any], bool]]] = {
    **_CONTAINER_CONTEXT,
    "allowPrivilegeEscalation": lambda value: value is False,
    "readOnlyRootFilesystem": lambda value: value is True,
    "capabilities": lambda value: (
        _only_drops(value) and value is not None and "ALL" in (value.get("drop") or ())
    ),
}

_POD: Final[dict[str, Callable[[Any], bool]]] = {
    "hostNetwork": _is_missing_or(False),
    "hostPID": _is_missing_or(False),
    "hostIPC": _is_missing_or(False),
    "hostname": _is_missing_or(),
    "subdomain": _is_missing_or(),
    "nodeName": _is_missing_or(),
    "ephemeralContainers": lambda value: not value,
    "automountServiceAccountToken": lambda value: value is False,
    "restartPolicy": _is_missing_or("Always"),
    "priorityClassName": lambda value: not str(value or "").startswith("system-"),
}
"""The allowed values of a pod's other fields; fields that are not listed are free."""


def pod_faults(cluster: Cluster) -> str:
    """Return what is wrong with the pods that `worker.podTemplate` asks for, or ""."""
    faults = list(_malformed(cluster.spec.worker.pod_template))
    if not faults:
        faults = list(_forbidden(cluster))
    if not faults:
        return ""
    more = f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
    return (
        f"worker.podTemplate asks for pods that the operator does not create: "
        f"{'; '.join(faults[:_SHOWN])}{more}. Remove these fields; workers that run go on as "
        "they are"
    )


def _malformed(theirs: Any, path: str = "") -> Iterator[str]:
    """Yield the fields of the template whose form cannot be merged."""
    if not isinstance(theirs, Mapping):
        return
    for name, value in theirs.items():
        place = f"{path}.{name}".removeprefix(".")
        if value is None:
            continue
        if name in NAMED_LISTS:
            if not isinstance(value, list) or not all(isinstance(it, Mapping) for it in value):
                yield f"{place} must be a list of objects"
                continue
            for item in value:
                yield from _malformed(item, place)
        elif name in ("metadata", "spec", "securityContext", "labels", "annotations"):
            if not isinstance(value, Mapping):
                yield f"{place} must be an object"
                continue
            yield from _malformed(value, place)


def _forbidden(cluster: Cluster) -> Iterator[str]:
    template = worker_template(cluster)
    spec = template["spec"]
    yield from _of(spec, _POD)
    for name in ("serviceAccountName", "serviceAccount"):
        if spec.get(name) not in (None, "", cluster.name):
            yield f"{name} (none, or {cluster.name})"
    yield from _context(spec, _POD_CONTEXT, "")
    for volume in spec.get("volumes") or []:
        yield from _volume(volume)
    for kind in _CONTAINER_LISTS:
        for container in spec.get(kind) or []:
            yield from _container(container, f"{kind}[{container.get('name', '?')}]", kind)
    theirs = cluster.spec.worker.pod_template
    yield from _program(theirs)
    if cluster.spec.administration.priority_class_name.startswith("system-"):
        yield "administration.priorityClassName"
    annotations = (template.get("metadata") or {}).get("annotations") or {}
    yield from (
        f"the annotation {name}"
        for name, value in annotations.items()
        if name.startswith(_APPARMOR) and value == "unconfined"
    )


def _of(fields: Mapping[str, Any], rules: Mapping[str, Callable[[Any], bool]]) -> Iterator[str]:
    yield from (name for name, is_allowed in rules.items() if not is_allowed(fields.get(name)))


def _context(
    fields: Mapping[str, Any], rules: Mapping[str, Callable[[Any], bool]], place: str
) -> Iterator[str]:
    """Yield the fields of a security context that are not allowed; unknown fields are not."""
    context = fields.get("securityContext") or {}
    wrong = [*_of(context, rules), *(name for name in context if name not in rules)]
    yield from (f"{place}.securityContext.{name}".removeprefix(".") for name in wrong)


def _volume(volume: Mapping[str, Any]) -> Iterator[str]:
    name = volume.get("name", "?")
    yield from (
        f"volumes[{name}].{source}"
        for source, value in volume.items()
        if source != "name" and value is not None and source not in _VOLUMES
    )
    projected = volume.get("projected")
    sources = projected.get("sources") if isinstance(projected, Mapping) else None
    for source in sources if isinstance(sources, list) else []:
        if isinstance(source, Mapping) and source.get("serviceAccountToken") is not None:
            yield f"volumes[{name}].projected.serviceAccountToken"


def _container(container: KubernetesObject, place: str, kind: str) -> Iterator[str]:
    is_worker = kind == "containers" and container.get("name") == WORKER
    yield from _context(container, _WORKER_CONTEXT if is_worker else _CONTAINER_CONTEXT, place)
    for port in container.get("ports") or []:
        if port.get("hostPort"):
            yield f"{place}.ports.hostPort"
    for name in _HANDLERS:
        if _names_host(container.get(name)):
            yield f"{place}.{name} of another host"
    hooks = container.get("lifecycle")
    if isinstance(hooks, Mapping) and any(map(_names_host, hooks.values())):
        yield f"{place}.lifecycle of another host"


def _names_host(handler: Any) -> bool:
    """Whether a handler makes the node's kubelet call an address of the user's choice."""
    if not isinstance(handler, Mapping):
        return False
    calls = (handler.get("httpGet"), handler.get("tcpSocket"))
    return any(isinstance(it, Mapping) and bool(it.get("host")) for it in calls)


def _program(theirs: Mapping[str, Any]) -> Iterator[str]:
    """Yield the fields that make the worker run another program; the operator sets the image."""
    for container in (theirs.get("spec") or {}).get("containers") or []:
        if container.get("name") == WORKER:
            yield from (
                f"containers[{WORKER}].{name}"
                for name in ("image", "command", "args")
                if container.get(name) is not None
            )
