"""Decides from an observation what to do: pure, so that tests can try every state."""

from datetime import datetime
from typing import Final

import msgspec

from microfin_operator.kinds import JOB
from microfin_operator.observation import Observation
from microfin_operator.plan import Action, Create, InSync, NeedsPerson, Note, Plan, State
from microfin_operator.pod_rules import pod_faults
from microfin_operator.routing import RoutingState, decide_routing, most_active_partitions
from microfin_operator.status import (
    Condition,
    Numbers,
    build_status,
    transitions,
    truth,
)
from microfin_operator.topic import TopicState, decide_topic
from microfin_operator.workers import WorkersState, decide_workers

SOON: Final = 5.0
"""Seconds until the next pass while something is in progress whose end no watch may report."""

AT_REST: Final = 600.0
"""Seconds until the next pass if everything is as desired: the watches report changes."""


REFUSED: Final = 60.0
"""Seconds until the next try of a request that the API server has refused."""


def decide(observation: Observation, now: datetime, refusal: str = "") -> Plan:
    """Return the actions, Events and status for a cluster, and the time of the next pass.

    `refusal` is the API server's message when it refused an action of the same plan.
    """
    faults = pod_faults(observation.cluster)
    if faults:
        observation = _without_pod_template(observation)
    topic = decide_topic(observation, most_active_partitions(observation), now)
    workers = decide_workers(
        observation, topic.partitions or topic.desired, hold=topic.foreign, faults=faults
    )
    routing = decide_routing(observation, topic.desired, topic.partitions, workers.working, now)
    states = {
        "TopicInSync": topic.state,
        "WorkersInSync": workers.state,
        "RoutingActive": routing.state,
    }
    conditions = _conditions(observation, states, _growing(topic, routing), refusal)
    warnings = {name for name, it in states.items() if isinstance(it, NeedsPerson)} | {"Degraded"}
    warnings |= {it.type for it in conditions if it.type == "Connected" and it.status == "False"}
    notes = transitions(observation.cluster, conditions, warnings)
    paused = observation.cluster.spec.paused
    status = build_status(
        observation,
        _phase(observation, states, conditions),
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
    at_rest = paused or all(isinstance(it, InSync) for it in states.values())
    requeue_after = REFUSED if refusal else AT_REST if at_rest else SOON
    return Plan(
        actions=() if paused else _actions(states, no_jobs=bool(faults)),
        notes=tuple(notes) + (() if paused else _notes(topic, workers)),
        status=status,
        requeue_after=requeue_after,
    )


def _without_pod_template(observation: Observation) -> Observation:
    """Return the observation without the refused pod template; no pod is made from it."""
    spec = observation.cluster.spec
    worker = msgspec.structs.replace(spec.worker, pod_template={})
    spec = msgspec.structs.replace(spec, worker=worker)
    cluster = msgspec.structs.replace(observation.cluster, spec=spec)
    return msgspec.structs.replace(observation, cluster=cluster)


def _actions(states: dict[str, State], *, no_jobs: bool) -> tuple[Action, ...]:
    """Return the actions of all components; with `no_jobs` without the creation of Jobs."""
    actions = (it for state in states.values() for it in state.actions)
    return tuple(
        it for it in actions if not (no_jobs and isinstance(it, Create) and it.kind == JOB)
    )


def _notes(topic: TopicState, workers: WorkersState) -> tuple[Note, ...]:
    return topic.state.notes + workers.state.notes


def _growing(topic: TopicState, routing: RoutingState) -> str:
    """Return from how many to how many partitions the cluster grows, or nothing."""
    if routing.active and routing.active < topic.desired:
        return f"from {routing.active} to {topic.desired} partitions"
    return ""


def _conditions(
    observation: Observation, states: dict[str, State], growing: str, refusal: str
) -> list[Condition]:
    out_of_sync = {name: it for name, it in states.items() if not isinstance(it, InSync)}
    waits = [f"{name}: {state.message}" for name, state in out_of_sync.items()]
    problems = [it for it in states.values() if isinstance(it, NeedsPerson)]
    if refusal:
        problems.insert(
            0, NeedsPerson("Refused", f"correct the spec or the permissions: {refusal}")
        )
    paused = observation.cluster.spec.paused
    first = next(iter(out_of_sync.values()), None)
    return [
        Condition("Ready", "True", "AllInSync", "topic, workers and routing are as desired")
        if first is None
        else Condition("Ready", "False", first.reason, "; ".join(waits)),
        *(
            Condition(name, truth(state), state.reason, state.message)
            for name, state in states.items()
        ),
        _connected(observation),
        Condition("Growing", "True", "Growing", f"growing {growing}")
        if growing
        else Condition("Growing", "False", "NotGrowing", "no growth is under way"),
        Condition("Degraded", "True", problems[0].reason, "; ".join(it.message for it in problems))
        if problems
        else Condition("Degraded", "False", "NoTrouble", "nothing needs a person"),
        Condition(
            "Paused", "True", "Paused", "the operator changes nothing: set spec.paused to false"
        )
        if paused
        else Condition("Paused", "False", "NotPaused", "the operator does its work"),
    ]


def _connected(observation: Observation) -> Condition:
    """Return the condition that shows which parts of the platform do not answer the workers."""
    if not observation.reports:
        return Condition("Connected", "Unknown", "NoWorkerTells", "no worker reports its parts")
    silent: dict[str, list[int]] = {}
    for partition, report in sorted(observation.reports.items()):
        for part in report.unreachable:
            silent.setdefault(part, []).append(partition)
    if not silent:
        return Condition("Connected", "True", "AllAnswer", "every part answers the workers")
    sentences = [
        f"{part} does not answer {len(partitions)} workers, of partition "
        f"{', '.join(map(str, partitions[:5]))}{' and others' if len(partitions) > 5 else ''}"
        for part, partitions in silent.items()
    ]
    message, first = "; ".join(sentences), next(iter(silent))
    if first == "Kafka":
        return Condition("Connected", "False", "KafkaSilent", message)
    if first == "PostgreSQL":
        return Condition("Connected", "False", "PostgreSQLSilent", message)
    return Condition("Connected", "False", "RedisSilent", message)


def _phase(observation: Observation, states: dict[str, State], conditions: list[Condition]) -> str:
    true = {it.type for it in conditions if it.status == "True"}
    if "Paused" in true:
        return "Paused"
    if "Degraded" in true:
        return "Degraded"
    if "Growing" in true:
        return "Growing"
    if "Ready" in true:
        return "Running"
    if observation.stateful_set is None:
        return "Pending"
    established = observation.cluster.earlier_partitions("active") > 0
    topic_in_sync = isinstance(states["TopicInSync"], InSync)
    return "Rolling" if established and topic_in_sync else "Provisioning"
