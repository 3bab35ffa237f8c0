"""What `worker.podTemplate` cannot say: the operator makes pods, and is no way around admission."""

from typing import Any

import msgspec
import pytest

from microfin_operator.decide import decide
from microfin_operator.kinds import JOB, STATEFUL_SET
from microfin_operator.plan import Delete, Plan
from support.operator import states
from support.operator.states import NOW


def worker(**fields: Any) -> dict[str, Any]:
    return {"containers": [{"name": "worker", **fields}]}


def sidecar(**fields: Any) -> dict[str, Any]:
    return {"containers": [{"name": "sidecar", "image": "x:1", **fields}]}


def volume(**source: Any) -> dict[str, Any]:
    return {"volumes": [{"name": "extra", **source}]}


TOKEN = {"sources": [{"serviceAccountToken": {"path": "token"}}]}
PROBE = {"httpGet": {"host": "10.0.0.1", "path": "/", "port": 80}}

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "the host's network": ({"hostNetwork": True}, "hostNetwork"),
    "the host's processes": ({"hostPID": True}, "hostPID"),
    "the host's queues": ({"hostIPC": True}, "hostIPC"),
    "a node": ({"nodeName": "node-1"}, "nodeName"),
    "another account": ({"serviceAccountName": "deployer"}, "serviceAccountName"),
    "another account by its old name": ({"serviceAccount": "deployer"}, "serviceAccount"),
    "a token": ({"automountServiceAccountToken": True}, "automountServiceAccountToken"),
    "the default of a token": ({"automountServiceAccountToken": None}, "automountServiceAccount"),
    "a token as a volume": (volume(projected=TOKEN), "serviceAccountToken"),
    "a system's priority": ({"priorityClassName": "system-node-critical"}, "priorityClassName"),
    "a folder of the node": (volume(hostPath={"path": "/"}), "hostPath"),
    "a folder of the node in the place of ours": (
        {"volumes": [{"name": "temporary", "emptyDir": None, "hostPath": {"path": "/"}}]},
        "hostPath",
    ),
    "a network's folder": (volume(nfs={"server": "x", "path": "/"}), "nfs"),
    "no security context": ({"securityContext": None}, "securityContext.runAsNonRoot"),
    "root": ({"securityContext": {"runAsNonRoot": False}}, "securityContext.runAsNonRoot"),
    "root by number": ({"securityContext": {"runAsUser": 0}}, "securityContext.runAsUser"),
    "root by nothing": (
        {"securityContext": {"runAsNonRoot": None}},
        "securityContext.runAsNonRoot",
    ),
    "no seccomp": (
        {"securityContext": {"seccompProfile": {"type": "Unconfined"}}},
        "securityContext.seccompProfile",
    ),
    "sysctls": ({"securityContext": {"sysctls": [{"name": "a", "value": "b"}]}}, "sysctls"),
    "SELinux": ({"securityContext": {"seLinuxOptions": {"type": "spc_t"}}}, "seLinuxOptions"),
    "Windows": ({"securityContext": {"windowsOptions": {"hostProcess": True}}}, "windowsOptions"),
    "a privileged worker": (worker(securityContext={"privileged": True}), "privileged"),
    "a worker without a context": (worker(securityContext=None), "allowPrivilegeEscalation"),
    "escalation": (
        worker(securityContext={"allowPrivilegeEscalation": True}),
        "allowPrivilegeEscalation",
    ),
    "a writable root": (
        worker(securityContext={"readOnlyRootFilesystem": False}),
        "readOnlyRootFilesystem",
    ),
    "a capability": (
        worker(securityContext={"capabilities": {"add": ["SYS_ADMIN"]}}),
        "capabilities",
    ),
    "all capabilities": (worker(securityContext={"capabilities": {"drop": []}}), "capabilities"),
    "a worker as root": (worker(securityContext={"runAsUser": 0}), "runAsUser"),
    "a proc of one's own": (worker(securityContext={"procMount": "Unmasked"}), "procMount"),
    "no AppArmor": (
        worker(securityContext={"appArmorProfile": {"type": "Unconfined"}}),
        "appArmorProfile",
    ),
    "a port of the host": (worker(ports=[{"containerPort": 1, "hostPort": 80}]), "hostPort"),
    "a probe of another host": (worker(livenessProbe=PROBE), "livenessProbe"),
    "a hook to another host": (worker(lifecycle={"preStop": PROBE}), "lifecycle"),
    "a privileged sidecar": (sidecar(securityContext={"privileged": True}), "privileged"),
    "a capability of a sidecar": (
        sidecar(securityContext={"capabilities": {"add": ["NET_ADMIN"]}}),
        "capabilities",
    ),
    "a sidecar as root": (sidecar(securityContext={"runAsNonRoot": False}), "runAsNonRoot"),
    "a privileged one before": (
        {
            "initContainers": [
                {"name": "i", "image": "x:1", "securityContext": {"privileged": True}}
            ]
        },
        "initContainers",
    ),
    "ephemeral ones": ({"ephemeralContainers": [{"name": "e", "image": "x:1"}]}, "ephemeral"),
    "no containers of ours": ({"containers": None}, "allowPrivilegeEscalation"),
    "no list": ({"volumes": {"name": "x"}}, "volumes must be a list of objects"),
    "no objects": ({"containers": ["worker"]}, "containers must be a list of objects"),
    "no object": ({"securityContext": "none"}, "securityContext"),
    "a host's name": ({"hostname": "x"}, "hostname"),
    "an end": ({"restartPolicy": "Never"}, "restartPolicy"),
    "another program": (worker(command=["sh"]), "command"),
}

ALLOWED: dict[str, dict[str, Any]] = {
    "its own account": {"serviceAccountName": "bank"},
    "what is so anyway": {"hostNetwork": False, "restartPolicy": "Always", "hostUsers": False},
    "a user and a group": {"securityContext": {"runAsUser": 1000, "fsGroup": 2000}},
    "a profile of the node": {
        "securityContext": {"seccompProfile": {"type": "Localhost", "localhostProfile": "a.json"}}
    },
    "a priority": {"priorityClassName": "money"},
    "volumes": {
        "volumes": [
            {"name": "ca", "secret": {"secretName": "ca"}},
            {"name": "more", "projected": {"sources": [{"configMap": {"name": "x"}}]}},
            {"name": "disk", "persistentVolumeClaim": {"claimName": "x"}},
        ]
    },
    "a sidecar": sidecar(
        command=["proxy"],
        ports=[{"containerPort": 9000}],
        securityContext={
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "runAsUser": 1000,
        },
        livenessProbe={"httpGet": {"path": "/", "port": 9000}},
    ),
    "what runs in another place": {"nodeSelector": {"a": "b"}, "runtimeClassName": "gvisor"},
}


def makes_pods(plan: Plan) -> bool:
    return any(it.kind in (STATEFUL_SET, JOB) and not isinstance(it, Delete) for it in plan.actions)


def plan_of(spec: dict[str, Any], **changes: Any) -> Plan:
    """Return what is decided when the topic is there and the workers are not, or not as wanted."""
    of = states.cluster(worker={"podTemplate": {"spec": spec}}, **changes)
    seen = states.at_rest(states.cluster(**changes), stateful_set=None, pods=[], reports={})
    return decide(msgspec.structs.replace(seen, cluster=of), NOW)


@pytest.mark.parametrize("what", REFUSED)
def test_no_pod_is_made_and_the_condition_says_which_field(what: str) -> None:
    spec, words = REFUSED[what]
    plan = plan_of(spec)
    assert not makes_pods(plan)
    degraded = states.condition(plan.status, "Degraded")
    assert (degraded["status"], degraded["reason"]) == ("True", "PodTemplateRefused")
    assert words in degraded["message"]
    assert states.condition(plan.status, "WorkersInSync")["reason"] == "PodTemplateRefused"


@pytest.mark.parametrize("what", ALLOWED)
def test_allowed_fields_are_accepted(what: str) -> None:
    plan = plan_of(ALLOWED[what])
    assert makes_pods(plan)
    assert states.condition(plan.status, "Degraded")["status"] == "False"


def test_an_old_way_to_put_apparmor_off_is_refused() -> None:
    name = "container.apparmor.security.beta.kubernetes.io/worker"
    of = states.cluster(worker={"podTemplate": {"metadata": {"annotations": {name: "unconfined"}}}})
    plan = decide(states.at_rest(of, stateful_set=None), NOW)
    assert not makes_pods(plan)
    assert name in states.condition(plan.status, "Degraded")["message"]


def test_no_job_is_made_either() -> None:
    """The growth's Job has the workers' template."""
    of = states.cluster(
        partitions=6, worker={"podTemplate": {"spec": {"hostNetwork": True}}},
        topic={"bootstrap": {"servers": "kafka:9092"}},
    )  # fmt: skip
    plan = decide(states.at_rest(of), NOW)
    assert not makes_pods(plan)


def test_a_job_has_no_priority_of_the_system_either() -> None:
    own = {"priorityClassName": "system-node-critical"}
    plan = plan_of({}, administration=own)
    assert not makes_pods(plan)
    words = states.condition(plan.status, "Degraded")["message"]
    assert "administration.priorityClassName" in words


def test_workers_that_run_are_left_as_they_are() -> None:
    before = states.at_rest(states.cluster())
    of = states.cluster(worker={"podTemplate": {"spec": {"hostNetwork": True}}})
    plan = decide(states.at_rest(of, stateful_set=before.stateful_set), NOW)
    assert plan.actions == ()
    assert plan.status["phase"] == "Degraded"
    assert "go on" in states.condition(plan.status, "WorkersInSync")["message"]
