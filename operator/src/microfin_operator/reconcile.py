"""One pass: observe, decide, act, report. Idempotent: it may end between any two requests."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import msgspec
import structlog

from microfin_operator.custom_resource import Cluster
from microfin_operator.decide import decide
from microfin_operator.events import record
from microfin_operator.kinds import MICROFIN_CLUSTER
from microfin_operator.kubernetes_api import KubernetesApi, Refused
from microfin_operator.observation import Observation
from microfin_operator.observe import observe
from microfin_operator.plan import Action, Apply, Create, Note, Plan
from microfin_operator.worker_reports import WorkerReader

logger = structlog.get_logger(__name__)


class Pass(msgspec.Struct, frozen=True):
    """The observation and the plan of a pass, and whether the pass changed anything."""

    observation: Observation
    plan: Plan
    changed: bool


async def reconcile(
    api: KubernetesApi, workers: WorkerReader, namespace: str, name: str, now: datetime
) -> Pass | None:
    """Bring a cluster one step closer to its spec. Return None if the cluster is gone.

    The watches notice the changes and start the next pass. Raises `ApiFailure` if a request
    failed; the next pass starts afresh.
    """
    observation = await observe(api, workers, namespace, name)
    if observation is None:
        return None
    plan = decide(observation, now)
    try:
        for action in plan.actions:
            await _perform(api, action)
    except Refused as refusal:
        plan = decide(observation, now, refusal=str(refusal))
    await _record_events(api, observation.cluster, plan.notes, now)
    news = not _is_unchanged(observation.cluster.status, plan.status)
    if news:
        await api.apply(MICROFIN_CLUSTER, _status_patch(observation, plan), "status")
    return Pass(observation, plan, bool(plan.actions) or news)


async def _record_events(
    api: KubernetesApi, cluster: Cluster, notes: Iterable[Note], now: datetime
) -> None:
    """Record Events. One that is refused is lost; the status says the same."""
    for note in notes:
        logger.info("event", cluster=cluster.name, reason=note.reason, text=note.message)
        try:
            await record(api, cluster, note, now)
        except Refused as refusal:
            logger.warning("the Event was refused", error=str(refusal))


async def _perform(api: KubernetesApi, action: Action) -> None:
    if isinstance(action, Apply):
        await api.apply(action.kind, action.item, force=action.force)
        verb, name = "applied", action.item["metadata"]["name"]
    elif isinstance(action, Create):
        await api.create(action.kind, action.item)
        verb, name = "created", action.item["metadata"]["name"]
    else:
        await api.delete(action.kind, action.namespace, action.name, action.uid)
        verb, name = "deleted", action.name
    logger.info(verb, kind=action.kind.name, name=name)


def _is_unchanged(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether the status needs no write. A field that only the old one has must be removed."""
    return dict(old) == dict(new)


def _status_patch(observation: Observation, plan: Plan) -> dict[str, Any]:
    return {
        "apiVersion": MICROFIN_CLUSTER.api_version,
        "kind": MICROFIN_CLUSTER.name,
        "metadata": {
            "name": observation.cluster.name,
            "namespace": observation.cluster.namespace,
            "uid": observation.cluster.uid,  # not into a new cluster of the same name
        },
        "status": plan.status,
    }
