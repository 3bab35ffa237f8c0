"""The objects of a load run in a cluster: scripts, users, and the Jobs that run k6 and audit.

Pure builders. All objects of a run have the run's name in their names, and one label by which they
are found and deleted.
"""

import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from microfin_loadtest.k6 import QUIET
from microfin_loadtest.scripts import FOLDER

RUN_LABEL: Final = "microfin.io/load"
CONTAINER: Final = "k6"
_IMPORTED: Final = re.compile(r"from '\./([\w-]+\.js)'")
_SCRIPTS: Final = "/scripts"
_USERS: Final = "/users/users.json"
_CONTROL_PORT: Final = 6565
_PLACE: Final = (
    "nodeSelector", "tolerations", "affinity", "priorityClassName", "imagePullSecrets"
)  # fmt: skip
_LONGEST: Final = 1024 * 1024  # bytes that a ConfigMap may hold

KubernetesObject = dict[str, Any]


@dataclass(frozen=True)
class Load:
    """One run. `remote_write` is the address of a Prometheus that k6 also writes samples to, and
    `query` its address for queries; both are empty, or neither. `place` says where its pods may run
    (`place_of`)."""

    name: str
    namespace: str
    script: Path
    rate: int
    duration: str
    seconds: int
    api: str
    image: str
    remote_write: str = ""
    query: str = ""
    release: str = "microfin"
    place: Mapping[str, Any] = field(default_factory=dict)

    @property
    def labels(self) -> dict[str, str]:
        """The label of all objects of the run."""
        return {RUN_LABEL: self.name}

    @property
    def pod_labels(self) -> dict[str, str]:
        """The labels of k6's pod: with `helm test`'s, the bank's network policies admit it."""
        return {**self.labels, **bank_labels(self.release, "test")}


def bank_labels(release: str, component: str) -> dict[str, str]:
    """Return the labels that a component's pods have."""
    return {
        "app.kubernetes.io/name": "microfin",
        "app.kubernetes.io/instance": release,
        "app.kubernetes.io/component": component,
    }


def place_of(cron_job: Mapping[str, Any]) -> dict[str, Any]:
    """Return where pods of the chart's audit CronJob may run, and how nodes pull their image."""
    audit = cron_job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    return {name: audit[name] for name in _PLACE if name in audit}


def scripts_map(load: Load, folder: Path = FOLDER) -> KubernetesObject:
    """Return the ConfigMap with the script and its imports. Raises ValueError if too large."""
    data: dict[str, str] = {}
    wanted = [load.script.name]
    while wanted:
        name = wanted.pop()
        data[name] = (folder / name).read_text(encoding="utf-8")
        wanted += [it for it in _IMPORTED.findall(data[name]) if it not in data]
    if sum(len(text.encode()) for text in data.values()) > _LONGEST:
        raise ValueError("The scripts are more than a ConfigMap holds (1 MiB).")
    return {**_head(load, "v1", "ConfigMap"), "data": data}


def users_secret(load: Load, users: str) -> KubernetesObject:
    """Return the Secret with the prepared users and their passwords."""
    return {**_head(load, "v1", "Secret"), "stringData": {"users.json": users}}


def job(load: Load) -> KubernetesObject:
    """Return the Job that runs k6 if there is no k6 operator."""
    container = {
        "name": CONTAINER,
        "image": load.image,
        "command": ["k6", "run", "--quiet", *_arguments(load), "--address", "",
                    f"{_SCRIPTS}/{load.script.name}"],
        "env": _environment(load),
        "volumeMounts": [
            {"name": "scripts", "mountPath": _SCRIPTS, "readOnly": True},
            *_mounts(),
        ],
        "resources": _resources(),
        "securityContext": _container_security(),
    }  # fmt: skip
    volumes = [{"name": "scripts", "configMap": {"name": load.name}}, *_volumes(load)]
    pod = {"containers": [container], "volumes": volumes}
    return {**_head(load, "batch/v1", "Job"), "spec": _job_spec(load, load.seconds + 600, pod)}


def k6_test_run(load: Load) -> KubernetesObject:
    """Return the TestRun for the k6 operator. It has one runner, because nothing would add up
    several runners' summaries.

    It has no initializer, which would run the script's beginning without the users' Secret.
    """
    secure = {
        "automountServiceAccountToken": "false",
        "securityContext": _pod_security(),
        "containerSecurityContext": _container_security(),
        **load.place,
    }
    return {
        **_head(load, "k6.io/v1alpha1", "TestRun"),
        "spec": {
            "parallelism": 1,
            "quiet": "true",
            "arguments": " ".join(_arguments(load)),
            "script": {"configMap": {"name": load.name, "file": load.script.name}},
            "initializer": {"disabled": True},
            "starter": secure,
            "runner": {
                **secure,
                "image": load.image,
                "metadata": {"labels": load.pod_labels},
                "env": _environment(load),
                "resources": _resources(),
                "volumes": _volumes(load),
                "volumeMounts": _mounts(),
            },
        },
    }


def network_policy(load: Load) -> KubernetesObject:
    """Return a NetworkPolicy for the connections that the bank's policies do not allow: the k6
    operator and its starter ask for k6's state, k6 writes to Prometheus if that is configured, and
    the gate's Job asks Prometheus."""
    operator = {"namespaceSelector": {"matchLabels": {
        "kubernetes.io/metadata.name": "k6-operator-system"}}}  # fmt: skip
    spec: dict[str, Any] = {
        "podSelector": {"matchLabels": load.labels},
        "policyTypes": ["Ingress"],
        "ingress": [
            {"from": [{"podSelector": {}}, operator],
             "ports": [{"protocol": "TCP", "port": _CONTROL_PORT}]}
        ],
    }  # fmt: skip
    if load.remote_write:
        # A pod that may send to Prometheus may send to nothing else but the API and DNS. Both are
        # allowed here too, because the bank's own policies can be switched off.
        spec["policyTypes"] = ["Ingress", "Egress"]
        api = {"podSelector": {"matchLabels": bank_labels(load.release, "api")}}
        prometheus = sorted({_port(load.remote_write), _port(load.query)})
        spec["egress"] = [
            {"ports": [{"protocol": it, "port": 53} for it in ("UDP", "TCP")]},
            {"to": [api]},
            {"ports": [{"protocol": "TCP", "port": it} for it in prometheus]},
        ]
    return {**_head(load, "networking.k8s.io/v1", "NetworkPolicy"), "spec": spec}


def gate_job(load: Load, cron_job: Mapping[str, Any], command: Sequence[str]) -> KubernetesObject:
    """Return a Job that runs a program in the image of the chart's audit CronJob, without its
    Secrets, and may send to the same places as k6."""
    audit = cron_job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    container = {
        "name": "gate",
        "image": audit["containers"][0]["image"],
        "command": list(command),
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}},
        "securityContext": _container_security(),
    }
    pod = {"containers": [container], **place_of(cron_job)}
    item = {**_head(load, "batch/v1", "Job"), "spec": _job_spec(load, 300, pod)}
    item["metadata"]["name"] = f"{load.name}-gate"
    return item


def ledger_job(
    load: Load, cron_job: Mapping[str, Any], what: str, command: Sequence[str]
) -> KubernetesObject:
    """Return a Job that reads the ledger once, with the rights of the chart's audit CronJob."""
    template = deepcopy(dict(cron_job["spec"]["jobTemplate"]))
    spec = template["spec"]
    spec["backoffLimit"] = 0
    spec["ttlSecondsAfterFinished"] = 3600
    spec.pop("podFailurePolicy", None)  # it only decides about further attempts
    spec["template"]["spec"]["containers"][0]["command"] = list(command)
    labels = {**template.get("metadata", {}).get("labels", {}), **load.labels}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": f"{load.name}-{what}",
            "namespace": load.namespace,
            "labels": labels,
        },
        "spec": spec,
    }


def _head(load: Load, version: str, kind: str) -> KubernetesObject:
    metadata = {"name": load.name, "namespace": load.namespace, "labels": load.labels}
    return {"apiVersion": version, "kind": kind, "metadata": metadata}


def _job_spec(load: Load, seconds: int, pod: Mapping[str, Any]) -> dict[str, Any]:
    """Return the spec of a Job with one attempt, which may run for `seconds`."""
    return {
        "backoffLimit": 0,
        "activeDeadlineSeconds": seconds,
        "ttlSecondsAfterFinished": 3600,
        "template": {
            "metadata": {"labels": load.pod_labels},
            "spec": {
                "restartPolicy": "Never",
                "automountServiceAccountToken": False,
                "enableServiceLinks": False,
                "securityContext": _pod_security(),
                **load.place,
                **pod,
            },
        },
    }


def _port(url: str) -> int:
    parts = urlsplit(url)
    return parts.port or (443 if parts.scheme == "https" else 80)


def _arguments(load: Load) -> list[str]:
    out = ["--out", "experimental-prometheus-rw", "--tag", f"testid={load.name}"]
    return ["--no-thresholds", *(out if load.remote_write else [])]


def _environment(load: Load) -> list[dict[str, str]]:
    variables = {
        **QUIET,
        "API": load.api,
        "RATE": str(load.rate),
        "DURATION": load.duration,
        "USERS": _USERS,
        # k6 prints the summary to stdout; the run reads it from the pod's log.
        "SUMMARY": "stdout",
    }
    if load.remote_write:
        variables["K6_PROMETHEUS_RW_SERVER_URL"] = load.remote_write
        variables["K6_PROMETHEUS_RW_TREND_STATS"] = "p(50),p(95),p(99),max"
    return [{"name": name, "value": value} for name, value in variables.items()]


def _volumes(load: Load) -> list[dict[str, Any]]:
    return [
        {"name": "users", "secret": {"secretName": load.name}},
        {"name": "temporary", "emptyDir": {}},
    ]


def _mounts() -> list[dict[str, Any]]:
    return [
        {"name": "users", "mountPath": "/users", "readOnly": True},
        {"name": "temporary", "mountPath": "/tmp"},  # noqa: S108 - in the pod
    ]


def _resources() -> dict[str, Any]:
    return {"requests": {"cpu": "500m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}}


def _pod_security() -> dict[str, Any]:
    return {
        # No number: the images have one of their own, and some platforms choose another.
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _container_security() -> dict[str, Any]:
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
