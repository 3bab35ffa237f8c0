"""From what is to what to do: pure, so that every state can be tried without a cluster."""

from datetime import datetime
from typing import Final

import msgspec

from microfin_operator.kinds import JOB
from microfin_operator.observation import Observed
from microfin_operator.plan import Action, Create, Note, Part, Plan
from microfin_operator.pod_rules import pod_faults
from microfin_operator.routing import RoutingPart, decide_routing, most_active_partitions
from microfin_operator.status import (
    Condition,
    Numbers,
    build_status,
    transitions,
    truth,
)
from microfin_operator.topic import TopicPart, decide_topic
from microfin_operator.workers import WorkersPart, decide_workers

SOON: Final = 5.0
"""Seconds until the next look while something is under way whose end no watch might tell."""

AT_REST: Final = 600.0
"""Seconds until the next look where all is as desired: watches do the work."""


REFUSED: Final = 60.0
"""Seconds until what the API server has refused is tried again."""


def decide(observed: Observed, now: datetime, refusal: str = "") -> Plan:
    """Return what to do about a cluster, what to tell, and when to look again at the latest.

    `refusal` is what the API server said when it refused an action of the same plan.
    """
    faults = pod_faults(observed.cluster)
    if faults:
        observed = _without_pod_template(observed)
    topic = decide_topic(observed, most_active_partitions(observed), now)
    workers = decide_workers(
        observed, topic.partitions or topic.desired, hold=topic.taken, faults=faults
    )
    routing = decide_routing(observed, topic.desired, topic.partitions, workers.working, now)
    parts = {
        "TopicInSync": topic.part,
        "WorkersInSync": workers.part,
        "RoutingActive": routing.part,
    }
    conditions = _conditions(observed, parts, _growing(topic, routing), refusal)
    troubles = {name for name, part in parts.items() if part.trouble} | {"Degraded"}
    notes = transitions(observed.cluster, conditions, troubles)
    paused = observed.cluster.spec.paused
    status = build_status(
        observed,
        _phase(observed, parts, conditions),
        conditions,
        Numbers(
            topic=topic.partitions,
            active=routing.active,
            desired=topic.desired,
            generation=routing.generation,
            count=routing.count,
            working=len(workers.working),
        ),
        now,
    )
    settled = paused or all(part.sound for part in parts.values())
    look_again = REFUSED if refusal else AT_REST if settled else SOON
    return Plan(
        actions=() if paused else _actions(parts, no_jobs=bool(faults)),
        notes=tuple(notes) + (() if paused else _notes(topic, workers)),
        status=status,
        look_again=look_again,
    )


def _without_pod_template(observed: Observed) -> Observed:
    """Return the cluster without what its pods cannot be; none is made from it."""
    spec = observed.cluster.spec
    worker = msgspec.structs.replace(spec.worker, pod_template={})
    spec = msgspec.structs.replace(spec, worker=worker)
    cluster = msgspec.structs.replace(observed.cluster, spec=spec)
    return msgspec.structs.replace(observed, cluster=cluster)


def _actions(parts: dict[str, Part], *, no_jobs: bool) -> tuple[Action, ...]:
    """Return what all parts want done; without the Jobs whose pods nobody may describe so."""
    actions = (it for part in parts.values() for it in part.actions)
    return tuple(
        it for it in actions if not (no_jobs and isinstance(it, Create) and it.kind == JOB)
    )


def _notes(topic: TopicPart, workers: WorkersPart) -> tuple[Note, ...]:
    return topic.part.notes + workers.part.notes


def _growing(topic: TopicPart, routing: RoutingPart) -> str:
    """Return from where to where the cluster grows, or nothing."""
    if routing.active and routing.active < topic.desired:
        return f"from {routing.active} to {topic.desired} partitions"
    return ""


def _conditions(
    observed: Observed, parts: dict[str, Part], growing: str, refusal: str
) -> list[Condition]:
    waits = [f"{name}: {part.message}" for name, part in parts.items() if not part.sound]
    troubles = [part for part in parts.values() if part.trouble]
    if refusal:
        troubles.insert(
            0, Part(False, "Refused", f"correct the spec or the permissions: {refusal}")
        )
    paused = observed.cluster.spec.paused
    first = next((part for part in parts.values() if not part.sound), None)
    return [
        Condition("Ready", "True", "AllInSync", "topic, workers and routing are as desired")
        if first is None
        else Condition("Ready", "False", first.reason, "; ".join(waits)),
        *(
            Condition(name, truth(part.sound), part.reason, part.message)
            for name, part in parts.items()
        ),
        Condition("Growing", "True", "Growing", f"growing {growing}")
        if growing
        else Condition("Growing", "False", "NotGrowing", "no growth is under way"),
        Condition("Degraded", "True", troubles[0].reason, "; ".join(it.message for it in troubles))
        if troubles
        else Condition("Degraded", "False", "NoTrouble", "nothing needs a person"),
        Condition(
            "Paused", "True", "Paused", "the operator changes nothing: set spec.paused to false"
        )
        if paused
        else Condition("Paused", "False", "NotPaused", "the operator does its work"),
    ]


def _phase(observed: Observed, parts: dict[str, Part], conditions: list[Condition]) -> str:
    true = {it.type for it in conditions if it.status == "True"}
    if "Paused" in true:
        return "Paused"
    if "Degraded" in true:
        return "Degraded"
    if "Growing" in true:
        return "Growing"
    if "Ready" in true:
        return "Running"
    if observed.stateful_set is None:
        return "Pending"
    established = observed.cluster.earlier_partitions("active") > 0
    return "Rolling" if established and parts["TopicInSync"].sound else "Provisioning"
