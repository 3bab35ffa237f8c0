"""The routing: over how many partitions accounts are spread, and the Job that spreads them."""

from datetime import datetime, timedelta
from typing import Final

import msgspec

from microfin_operator.jobs import is_finished, job, removal, step
from microfin_operator.kinds import KubernetesObject
from microfin_operator.names import growth_job_name
from microfin_operator.observation import Observed
from microfin_operator.plan import Part

ADOPTED_WITHIN: Final = timedelta(seconds=30)
"""After a growth every worker takes over the routing with its next write, an idle one in 3 s."""


class RoutingPart(msgspec.Struct, frozen=True):
    """The routing's state. `active` is over how many partitions accounts are spread in all shards;
    `generation` and `count` are 0 where workers differ or none tells."""

    part: Part
    active: int
    generation: int = 0
    count: int = 0


def most_active_partitions(observed: Observed) -> int:
    """Return over how many partitions accounts are spread in some shard, 0 where nobody knows.

    A topic never has fewer.
    """
    reported = max((it.partition_count for it in observed.reports.values()), default=0)
    return max(reported, observed.cluster.earlier_partitions("active"))


def decide_routing(
    observed: Observed, desired: int, topic_partitions: int, working: frozenset[int], now: datetime
) -> RoutingPart:
    """Return what the routing is, and what to do so that it spreads over `desired` partitions."""
    told = {
        (it.generation, it.partition_count)
        for partition, it in observed.reports.items()
        if partition in working
    }
    earlier = observed.cluster.earlier_partitions("active")
    active = min((count for _, count in told), default=earlier)
    if not told:
        part = Part(None, "NoWorkerTells", "no worker is at work that could tell the routing")
        return RoutingPart(part, active)
    generation, count = told.pop() if len(told) == 1 else (0, 0)
    if count == desired:
        part = Part(True, "Active", f"accounts are spread over {desired} partitions")
        return RoutingPart(part, active, generation, count)
    part = _growth(observed, active, desired, topic_partitions, working, now)
    return RoutingPart(part, active, generation, count)


def _growth(
    observed: Observed,
    active: int,
    desired: int,
    topic_partitions: int,
    working: frozenset[int],
    now: datetime,
) -> Part:
    span = f"from {active} to {desired} partitions"
    if topic_partitions < desired:
        return Part(False, "WaitingForTopic", f"growing {span}: the topic has {topic_partitions}")
    missing = sorted(set(range(desired)) - working)
    if missing:
        return Part(
            False,
            "WaitingForWorkers",
            f"growing {span}: {len(missing)} partitions are not claimed yet "
            f"({', '.join(map(str, missing[:5]))}{', …' if len(missing) > 5 else ''})",
        )
    name = growth_job_name(observed.cluster.name, desired)
    other = _other_growth(observed, name)
    if other:
        return Part(False, "WaitingForGrowth", f"growing {span}: Job {other} is still growing")
    return _by_job(observed, name, span, desired, now)


def _by_job(observed: Observed, name: str, span: str, desired: int, now: datetime) -> Part:
    command = ["microfin", "routing", "grow", "--partitions", str(desired)]
    wanted: KubernetesObject = job(observed.cluster, name, command)
    done = step(observed, wanted, now)
    if done.state == "failed":
        message = f"growing {span}: Job {name} failed: {done.message}. It is tried again"
        return Part(False, "GrowthFailed", message, True, done.actions)
    if done.state == "complete":
        late = done.finished is not None and now - done.finished > ADOPTED_WITHIN
        found = next(it for it in observed.jobs if it["metadata"]["name"] == name)
        actions = (removal(found),) if late else ()
        message = f"growing {span}: Job {name} is done, the workers take it over"
        return Part(False, "Activating", message, False, actions)
    waiting = f" ({done.message})" if done.message else ""
    message = f"growing {span}: Job {name} spreads the accounts{waiting}"
    return Part(False, "GrowthRunning", message, bool(done.message), done.actions)


def _other_growth(observed: Observed, name: str) -> str:
    """Return another growth's Job that has not ended, or nothing."""
    start = growth_job_name(observed.cluster.name, 0).removesuffix("0")
    for found in observed.jobs:
        other = str(found["metadata"]["name"])
        if other.startswith(start) and other != name and not is_finished(found):
            return other
    return ""
