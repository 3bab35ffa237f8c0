"""The workers: as many as the topic has partitions, each of the current image, each claimed."""

from typing import Any

import msgspec

from microfin_operator.custom_resource import Cluster
from microfin_operator.drift import applied_hash, apply_unless_so, stranger
from microfin_operator.jobs import pod_trouble
from microfin_operator.kinds import (
    DISRUPTION_BUDGET,
    SERVICE,
    STATEFUL_SET,
    KubernetesObject,
)
from microfin_operator.names import WORKER_PORT, worker_name
from microfin_operator.observation import Observed, WorkerReport, is_ready, is_terminating
from microfin_operator.plan import Note, Part
from microfin_operator.workload import disruption_budget, service, stateful_set

WORKING = "working"
"""The state of a worker that has claimed its partition and decides its commands."""

_BROKEN = "stopped"
"""The state of a worker that has met something that only a person can repair."""


class WorkersPart(msgspec.Struct, frozen=True):
    """The workers' state; `working` are the partitions that have a worker at work."""

    part: Part
    working: frozenset[int]


def decide_workers(
    observed: Observed, replicas: int, *, hold: bool, faults: str = ""
) -> WorkersPart:
    """Return what the workers are, and what to do so that there are `replicas` of them.

    With `hold` they are left as they are: they would work on another ledger's commands. So they are
    with `faults`, which say what their pods cannot be.
    """
    cluster = observed.cluster
    working = frozenset(
        ordinal
        for ordinal, report in observed.reports.items()
        if report.state == WORKING and not is_terminating(observed.worker_pods[ordinal])
    )
    if hold:
        return WorkersPart(Part(False, "WaitingForTopic", "there is no topic to work on"), working)
    if faults:
        return WorkersPart(Part(False, "PodTemplateRefused", faults, trouble=True), working)
    taken = _taken(observed)
    if taken:
        return WorkersPart(Part(False, "NameTaken", taken, trouble=True), working)
    wanted = stateful_set(cluster, replicas)
    part = msgspec.structs.replace(
        _view(observed, wanted, working),
        actions=(
            *apply_unless_so(SERVICE, observed.service, service(cluster)),
            *apply_unless_so(
                DISRUPTION_BUDGET, observed.disruption_budget, disruption_budget(cluster)
            ),
            *apply_unless_so(STATEFUL_SET, observed.stateful_set, wanted),
        ),
        notes=_notes(cluster, observed.stateful_set, wanted),
    )
    return WorkersPart(part, working)


def _taken(observed: Observed) -> str:
    owned = (observed.stateful_set, observed.service, observed.disruption_budget)
    return "; ".join(filter(None, (stranger(it, observed.cluster) for it in owned)))


def _notes(
    cluster: Cluster, live: KubernetesObject | None, wanted: KubernetesObject
) -> tuple[Note, ...]:
    """Tell of somebody who has scaled the StatefulSet: what we applied last is what we want now."""
    if live is None or not _is_applied(live, wanted):
        return ()
    found, right = live["spec"].get("replicas", 1), wanted["spec"]["replicas"]
    if found == right:
        return ()
    note = Note(
        "Warning",
        "ReplicasRestored",
        f"StatefulSet {worker_name(cluster.name)} was scaled to {found} by hand; set back to "
        f"{right}, one worker for each partition. To grow: kubectl scale mfc/{cluster.name}",
    )
    return (note,)


def _view(observed: Observed, wanted: KubernetesObject, working: frozenset[int]) -> Part:
    """Return whether the workers are as desired, and if not, what they wait for."""
    live, replicas = observed.stateful_set, wanted["spec"]["replicas"]
    if live is None:
        return Part(False, "Creating", f"creating {replicas} workers")
    broken = _broken(observed)
    if broken:
        return Part(False, "WorkerBroken", broken, trouble=True)
    found = live["spec"].get("replicas", 1)
    if found != replicas:
        return Part(False, "Scaling", f"scaling from {found} to {replicas} workers")
    if not _is_applied(live, wanted):
        return Part(False, "Applying", "changing the StatefulSet")
    return _progress(observed, live, replicas, working)


def _progress(
    observed: Observed, live: KubernetesObject, replicas: int, working: frozenset[int]
) -> Part:
    """Return how far the workers of a StatefulSet are that is as we want it."""
    waiting = sorted(set(range(replicas)) - working)
    rolling = _rolling(live, replicas)
    if rolling:
        return Part(False, "Rolling", f"{rolling}{_told(observed, waiting)}")
    if waiting:
        count = f"{replicas - len(waiting)} of {replicas} workers work"
        return Part(False, "WaitingForClaims", f"{count}{_told(observed, waiting)}")
    return Part(True, "InSync", f"{replicas} partitions, each with its worker")


def _is_applied(live: KubernetesObject, wanted: KubernetesObject) -> bool:
    return applied_hash(live) == applied_hash(wanted)


def _broken(observed: Observed) -> str:
    """Return what is wrong with workers that will not heal by waiting, or nothing."""
    told = []
    for ordinal, pod in sorted(observed.worker_pods.items()):
        report = observed.reports.get(ordinal)
        trouble = pod_trouble(pod)
        if trouble:
            told.append(f"{pod['metadata']['name']}: {trouble}")
        elif report is not None and report.state == _BROKEN and not is_terminating(pod):
            told.append(f"{pod['metadata']['name']} has stopped: {report.reason}")
    return "; ".join(told)


def _rolling(live: KubernetesObject, replicas: int) -> str:
    """Return how far a new pod template is rolled out, or nothing where it is everywhere."""
    status: dict[str, Any] = live.get("status", {})
    if status.get("observedGeneration", 0) != live["metadata"].get("generation", 1):
        return "waiting for the StatefulSet's controller"
    updated = status.get("updatedReplicas", 0)
    if status.get("updateRevision") == status.get("currentRevision") or updated >= replicas:
        return ""
    return f"{updated} of {replicas} workers have the new pod template"


def _told(observed: Observed, waiting: list[int]) -> str:
    """Return what the first workers say that do not work yet."""
    if not waiting:
        return ""
    told = [_says(ordinal, observed) for ordinal in waiting[:3]]
    more = f"; and {len(waiting) - 3} more" if len(waiting) > 3 else ""
    return "; " + "; ".join(told) + more


def _says(ordinal: int, observed: Observed) -> str:
    pod, report = observed.worker_pods.get(ordinal), observed.reports.get(ordinal)
    if pod is None:
        return f"partition {ordinal} has no pod"
    if is_terminating(pod):
        return f"partition {ordinal}'s worker is ending"
    if report is None and is_ready(pod):
        return (
            f"partition {ordinal}'s worker is ready, but does not answer the operator on port "
            f"{WORKER_PORT}: let a NetworkPolicy allow it"
        )
    if report is None:
        return f"partition {ordinal}'s worker is starting"
    return f"partition {ordinal}'s worker is {_state(report)}"


def _state(report: WorkerReport) -> str:
    return f"{report.state}: {report.reason}" if report.reason else report.state
