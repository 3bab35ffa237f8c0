"""The workers: one for each partition, running the current image, with its partition claimed."""

from typing import Any

import msgspec

from microfin_operator.custom_resource import Cluster
from microfin_operator.drift import applied_hash, apply_if_drifted, why_not_ours
from microfin_operator.jobs import pod_problem
from microfin_operator.kinds import (
    DISRUPTION_BUDGET,
    SERVICE,
    STATEFUL_SET,
    KubernetesObject,
)
from microfin_operator.names import WORKER_PORT, worker_name
from microfin_operator.observation import Observation, WorkerReport, is_ready, is_terminating
from microfin_operator.plan import InSync, NeedsPerson, Note, Progressing, State
from microfin_operator.workload import disruption_budget, service, stateful_set

WORKING = "working"
"""The state of a worker that has claimed its partition and decides its commands."""

_DISCONNECTED = "disconnected"
"""The state of a worker that has claimed its partition, and whose Kafka or PostgreSQL is silent."""

_BROKEN = "stopped"
"""The state of a worker that has found a fault that only a person can repair."""


class WorkersState(msgspec.Struct, frozen=True):
    """The workers' state; `working` are the partitions that have a worker at work."""

    state: State
    working: frozenset[int]


def decide_workers(
    observation: Observation, replicas: int, *, hold: bool, faults: str = ""
) -> WorkersState:
    """Return the workers' state, with the actions that run `replicas` of them.

    With `hold` nothing changes: the workers would read another ledger's commands. Nothing changes
    with `faults` either, which are the forbidden fields of their pods.
    """
    cluster = observation.cluster
    working = frozenset(
        ordinal
        for ordinal, report in observation.reports.items()
        if report.state == WORKING and not is_terminating(observation.worker_pods[ordinal])
    )
    if hold:
        return WorkersState(Progressing("WaitingForTopic", "there is no topic to work on"), working)
    if faults:
        return WorkersState(NeedsPerson("PodTemplateRefused", faults), working)
    foreign = _foreign_objects(observation)
    if foreign:
        return WorkersState(NeedsPerson("NameTaken", foreign), working)
    wanted = stateful_set(cluster, replicas)
    state = msgspec.structs.replace(
        _view(observation, wanted, working),
        actions=(
            *apply_if_drifted(SERVICE, observation.service, service(cluster)),
            *apply_if_drifted(
                DISRUPTION_BUDGET, observation.disruption_budget, disruption_budget(cluster)
            ),
            *apply_if_drifted(STATEFUL_SET, observation.stateful_set, wanted),
        ),
        notes=_notes(cluster, observation.stateful_set, wanted),
    )
    return WorkersState(state, working)


def _foreign_objects(observation: Observation) -> str:
    owned = (observation.stateful_set, observation.service, observation.disruption_budget)
    return "; ".join(filter(None, (why_not_ours(it, observation.cluster) for it in owned)))


def _notes(
    cluster: Cluster, live: KubernetesObject | None, wanted: KubernetesObject
) -> tuple[Note, ...]:
    """Return an Event if someone has scaled the StatefulSet by hand: the operator's last apply had
    the wanted number, and the StatefulSet has another."""
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


def _view(observation: Observation, wanted: KubernetesObject, working: frozenset[int]) -> State:
    """Return the workers' state, and what they wait for if they are not as desired."""
    live, replicas = observation.stateful_set, wanted["spec"]["replicas"]
    if live is None:
        return Progressing("Creating", f"creating {replicas} workers")
    broken = _broken(observation)
    if broken:
        return NeedsPerson("WorkerBroken", broken)
    found = live["spec"].get("replicas", 1)
    if found != replicas:
        return Progressing("Scaling", f"scaling from {found} to {replicas} workers")
    if not _is_applied(live, wanted):
        return Progressing("Applying", "changing the StatefulSet")
    return _progress(observation, live, replicas, working)


def _progress(
    observation: Observation, live: KubernetesObject, replicas: int, working: frozenset[int]
) -> State:
    """Return the progress of the workers of an up-to-date StatefulSet."""
    waiting = sorted(set(range(replicas)) - working)
    rolling = _rolling(live, replicas)
    if rolling:
        return Progressing("Rolling", f"{rolling}{_reasons(observation, waiting)}")
    if waiting:
        count = f"{replicas - len(waiting)} of {replicas} workers work"
        cut_off = any(it.state == _DISCONNECTED for it in observation.reports.values())
        reason = "Disconnected" if cut_off else "WaitingForClaims"
        return Progressing(reason, f"{count}{_reasons(observation, waiting)}")
    return InSync("InSync", f"{replicas} partitions, each with its worker")


def _is_applied(live: KubernetesObject, wanted: KubernetesObject) -> bool:
    return applied_hash(live) == applied_hash(wanted)


def _broken(observation: Observation) -> str:
    """Return the problems of workers that do not end by waiting, or ""."""
    problems = []
    for ordinal, pod in sorted(observation.worker_pods.items()):
        report = observation.reports.get(ordinal)
        problem = pod_problem(pod)
        if problem:
            problems.append(f"{pod['metadata']['name']}: {problem}")
        elif report is not None and report.state == _BROKEN and not is_terminating(pod):
            problems.append(f"{pod['metadata']['name']} has stopped: {report.reason}")
    return "; ".join(problems)


def _rolling(live: KubernetesObject, replicas: int) -> str:
    """Return the progress of rolling out a new pod template, or "" if it is finished."""
    status: dict[str, Any] = live.get("status", {})
    if status.get("observedGeneration", 0) != live["metadata"].get("generation", 1):
        return "waiting for the StatefulSet's controller"
    updated = status.get("updatedReplicas", 0)
    if status.get("updateRevision") == status.get("currentRevision") or updated >= replicas:
        return ""
    return f"{updated} of {replicas} workers have the new pod template"


def _reasons(observation: Observation, waiting: list[int]) -> str:
    """Return why the first three of the workers that do not work yet do not."""
    if not waiting:
        return ""
    reasons = [_reason(ordinal, observation) for ordinal in waiting[:3]]
    more = f"; and {len(waiting) - 3} more" if len(waiting) > 3 else ""
    return "; " + "; ".join(reasons) + more


def _reason(ordinal: int, observation: Observation) -> str:
    pod, report = observation.worker_pods.get(ordinal), observation.reports.get(ordinal)
    if pod is None:
        return f"partition {ordinal} has no pod"
    if is_terminating(pod):
        return f"partition {ordinal}'s worker is ending"
    if report is None and is_ready(pod):
        return (
            f"partition {ordinal}'s worker is ready, but does not answer the operator on port "
            f"{WORKER_PORT}: allow that in a NetworkPolicy"
        )
    if report is None:
        return f"partition {ordinal}'s worker is starting"
    return f"partition {ordinal}'s worker is {_state(report)}"


def _state(report: WorkerReport) -> str:
    return f"{report.state}: {report.reason}" if report.reason else report.state
