"""Builds the status of a MicrofinCluster: conditions, phase, numbers, lag."""

from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from microfin_operator.custom_resource import Cluster
from microfin_operator.names import selector_text, worker_selector
from microfin_operator.observation import Observation
from microfin_operator.plan import InSync, Note, State, Unknown

Truth = Literal["True", "False", "Unknown"]


class Condition(msgspec.Struct, frozen=True):
    """One condition in this pass."""

    type: str
    status: Truth
    reason: str
    message: str


class Numbers(msgspec.Struct, frozen=True):
    """The numbers of partitions, the routing that all workers report (0 if they differ or none
    reports), and how many workers have claimed their partition."""

    topic: int
    active: int
    desired: int
    generation: int
    count: int
    working: int


def truth(state: State) -> Truth:
    """Return the status of the condition that shows a component's state."""
    if isinstance(state, Unknown):
        return "Unknown"
    return "True" if isinstance(state, InSync) else "False"


def build_status(
    observation: Observation,
    phase: str,
    conditions: list[Condition],
    numbers: Numbers,
    now: datetime,
) -> dict[str, Any]:
    """Return the status. A condition keeps its transition time until its status changes."""
    cluster = observation.cluster
    replicas = (observation.stateful_set or {}).get("status", {})
    lag = [
        {
            "partition": partition,
            "records": report.lag_records,
            "seconds": int(report.lag_seconds),
        }
        for partition, report in sorted(observation.reports.items())
        if "Kafka" not in report.unreachable  # then nobody knows it
    ]
    status: dict[str, Any] = {
        "observedGeneration": cluster.generation,
        "phase": phase,
        "partitions": _known(
            {"topic": numbers.topic, "active": numbers.active, "desired": numbers.desired}
        ),
        "replicas": replicas.get("replicas", 0),
        "readyReplicas": numbers.working,
        "selector": selector_text(worker_selector(cluster.name)),
        "lagRecords": sum(it["records"] for it in lag),
        "lag": lag,
        "conditions": [_dated(cluster, condition, now) for condition in conditions],
    }
    if numbers.generation:
        status["routing"] = {"generation": numbers.generation, "count": numbers.count}
    return status


def transitions(cluster: Cluster, conditions: list[Condition], warnings: set[str]) -> list[Note]:
    """Return an Event for each condition whose status or reason differs from the last pass's.

    For `Ready` only the status counts: its reason comes from another condition with its own Event.
    """
    before = {it["type"]: it for it in cluster.status.get("conditions") or []}
    notes = []
    for it in conditions:
        old = before.get(it.type)
        same = old is not None and (
            old["status"] == it.status and (it.type == "Ready" or old["reason"] == it.reason)
        )
        # A condition that has always been as it should be needs no Event.
        quiet = old is None and (
            (it.type in ("Growing", "Degraded", "Paused") and it.status == "False")
            or (it.type == "Connected" and it.status != "False")
        )
        if not same and not quiet:
            kind: Literal["Normal", "Warning"] = "Warning" if it.type in warnings else "Normal"
            notes.append(Note(kind, it.reason, f"{it.type} is {it.status}: {it.message}"))
    return notes


def _known(numbers: dict[str, int]) -> dict[str, int]:
    return {name: number for name, number in numbers.items() if number}


def _dated(cluster: Cluster, condition: Condition, now: datetime) -> dict[str, Any]:
    before = {it["type"]: it for it in cluster.status.get("conditions") or []}
    old = before.get(condition.type)
    since = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if old is not None and old["status"] == condition.status:
        since = old["lastTransitionTime"]
    return {
        "type": condition.type,
        "status": condition.status,
        "observedGeneration": cluster.generation,
        "lastTransitionTime": since,
        "reason": condition.reason,
        "message": condition.message,
    }
