"""The routing: how many partitions accounts are spread over, and the Job that grows the number."""

from datetime import datetime, timedelta
from typing import Final

import msgspec

from microfin_operator.jobs import is_finished, job, removal, step
from microfin_operator.kinds import KubernetesObject
from microfin_operator.names import growth_job_name
from microfin_operator.observation import Observation
from microfin_operator.plan import InSync, NeedsPerson, Progressing, State, Unknown

ADOPTED_WITHIN: Final = timedelta(seconds=30)
"""After a growth a worker adopts the routing with its next write, an idle one within 3 s."""


class RoutingState(msgspec.Struct, frozen=True):
    """The routing's state. `active` is the number of partitions that accounts are spread over in
    all shards; `generation` and `count` are 0 if the workers differ or none reports."""

    state: State
    active: int
    generation: int = 0
    count: int = 0


def most_active_partitions(observation: Observation) -> int:
    """Return the most partitions that a shard spreads its accounts over; 0 if it is unknown.

    A topic never has fewer.
    """
    reported = max((it.partition_count for it in observation.reports.values()), default=0)
    return max(reported, observation.cluster.earlier_partitions("active"))


def decide_routing(
    observation: Observation,
    desired: int,
    topic_partitions: int,
    working: frozenset[int],
    now: datetime,
) -> RoutingState:
    """Return the routing's state, with the actions that spread it over `desired` partitions."""
    routings = {
        (it.generation, it.partition_count)
        for partition, it in observation.reports.items()
        if partition in working
    }
    earlier = observation.cluster.earlier_partitions("active")
    active = min((count for _, count in routings), default=earlier)
    if not routings:
        unknown = Unknown("NoWorkerTells", "no worker is at work that could report the routing")
        return RoutingState(unknown, active)
    generation, count = routings.pop() if len(routings) == 1 else (0, 0)
    if count == desired:
        in_sync = InSync("Active", f"accounts are spread over {desired} partitions")
        return RoutingState(in_sync, active, generation, count)
    growth = _growth(observation, active, desired, topic_partitions, working, now)
    return RoutingState(growth, active, generation, count)


def _growth(
    observation: Observation,
    active: int,
    desired: int,
    topic_partitions: int,
    working: frozenset[int],
    now: datetime,
) -> State:
    span = f"from {active} to {desired} partitions"
    if topic_partitions < desired:
        return Progressing("WaitingForTopic", f"growing {span}: the topic has {topic_partitions}")
    missing = sorted(set(range(desired)) - working)
    if missing:
        return Progressing(
            "WaitingForWorkers",
            f"growing {span}: {len(missing)} partitions are not claimed yet "
            f"({', '.join(map(str, missing[:5]))}{', …' if len(missing) > 5 else ''})",
        )
    name = growth_job_name(observation.cluster.name, desired)
    other = _other_growth(observation, name)
    if other:
        return Progressing("WaitingForGrowth", f"growing {span}: Job {other} is still growing")
    return _by_job(observation, name, span, desired, now)


def _by_job(observation: Observation, name: str, span: str, desired: int, now: datetime) -> State:
    command = ["microfin", "routing", "grow", "--partitions", str(desired)]
    wanted: KubernetesObject = job(observation.cluster, name, command)
    done = step(observation, wanted, now)
    if done.state == "failed":
        message = f"growing {span}: Job {name} failed: {done.message}. It is tried again"
        return NeedsPerson("GrowthFailed", message, done.actions)
    if done.state == "complete":
        late = done.finished is not None and now - done.finished > ADOPTED_WITHIN
        found = next(it for it in observation.jobs if it["metadata"]["name"] == name)
        actions = (removal(found),) if late else ()
        message = f"growing {span}: Job {name} is done, the workers adopt the routing"
        return Progressing("Activating", message, actions)
    waiting = f" ({done.message})" if done.message else ""
    message = f"growing {span}: Job {name} spreads the accounts{waiting}"
    state = NeedsPerson if done.message else Progressing
    return state("GrowthRunning", message, done.actions)


def _other_growth(observation: Observation, name: str) -> str:
    """Return the name of another growth's Job that has not ended, or ""."""
    start = growth_job_name(observation.cluster.name, 0).removesuffix("0")
    for found in observation.jobs:
        other = str(found["metadata"]["name"])
        if other.startswith(start) and other != name and not is_finished(found):
            return other
    return ""
