"""Administrative Jobs: the operator creates one, waits for it, and repeats it after a failure."""

from datetime import datetime, timedelta
from typing import Any, Final, Literal

import msgspec

from microfin_operator.custom_resource import Cluster
from microfin_operator.kinds import JOB, KubernetesObject
from microfin_operator.names import ADMINISTRATION, labels
from microfin_operator.observation import Observation, is_terminating
from microfin_operator.plan import Action, Create, Delete
from microfin_operator.pod_template import administration_template

RETRY_AFTER: Final = timedelta(seconds=15)
"""How long a failed Job stays, so that people can read its log, before the next attempt."""

_KEPT: Final = 600  # seconds that a finished Job stays
_DEADLINE: Final = 900  # seconds that a Job may run

JobState = Literal["started", "running", "complete", "failed", "terminating"]


class JobStep(msgspec.Struct, frozen=True):
    """A Job's progress, the actions it needs, and its last message if it failed."""

    state: JobState
    actions: tuple[Action, ...] = ()
    message: str = ""
    finished: datetime | None = None


def job(cluster: Cluster, name: str, command: list[str]) -> KubernetesObject:
    """Return a Job that runs `command` with the workers' image and settings."""
    return {
        "apiVersion": JOB.api_version,
        "kind": JOB.name,
        "metadata": {
            "name": name,
            "namespace": cluster.namespace,
            "labels": labels(cluster.name, ADMINISTRATION),
            "ownerReferences": [cluster.owner_reference],
        },
        "spec": {
            # The command itself waits and repeats; the operator handles a failure.
            "backoffLimit": 0,
            "activeDeadlineSeconds": _DEADLINE,
            "ttlSecondsAfterFinished": _KEPT,
            "template": administration_template(cluster, command),
        },
    }


def step(observation: Observation, wanted: KubernetesObject, now: datetime) -> JobStep:
    """Return the progress of the Job `wanted`, and the actions that make it run."""
    name = wanted["metadata"]["name"]
    found = next((it for it in observation.jobs if it["metadata"]["name"] == name), None)
    if found is None:
        return JobStep("started", (Create(JOB, wanted),))
    if is_terminating(found):
        return JobStep("terminating")
    ended = _ended(found)
    if ended is None:
        return JobStep("running", message=_waiting(observation, name))
    kind, condition = ended
    finished = datetime.fromisoformat(condition["lastTransitionTime"])
    if kind == "Complete":
        return JobStep("complete", finished=finished)
    message = _last_words(observation, name) or str(condition.get("message", "it failed"))
    actions = (removal(found),) if now - finished >= RETRY_AFTER else ()
    return JobStep("failed", actions, message, finished)


def removal(found: KubernetesObject) -> Delete:
    """Return the deletion of a Job with its pods."""
    metadata = found["metadata"]
    return Delete(JOB, metadata["namespace"], metadata["name"], metadata.get("uid", ""))


def completed(observation: Observation) -> list[str]:
    """Return the names of the Jobs that have succeeded."""
    ends = ((it["metadata"]["name"], _ended(it)) for it in observation.jobs)
    return [name for name, end in ends if end is not None and end[0] == "Complete"]


def is_finished(found: KubernetesObject) -> bool:
    """Whether a Job has completed or failed."""
    return _ended(found) is not None


def _ended(found: KubernetesObject) -> tuple[str, dict[str, Any]] | None:
    for condition in found.get("status", {}).get("conditions") or []:
        if condition["type"] in ("Complete", "Failed") and condition["status"] == "True":
            return condition["type"], condition
    return None


def _last_words(observation: Observation, name: str) -> str:
    """Return the last words on stderr of a failed Job's pod."""
    for pod in reversed(observation.job_pods(name)):
        for status in pod.get("status", {}).get("containerStatuses") or []:
            ended = status.get("state", {}).get("terminated") or {}
            if ended.get("message"):
                return " ".join(str(ended["message"]).split())[-1000:]
    return ""


def _waiting(observation: Observation, name: str) -> str:
    """Return what prevents the Job's pod from starting, or ""."""
    for pod in observation.job_pods(name):
        problem = pod_problem(pod)
        if problem:
            return problem
    return ""


_STUCK: Final = frozenset(
    ("CrashLoopBackOff", "ImagePullBackOff", "ErrImagePull", "InvalidImageName",
     "CreateContainerConfigError", "CreateContainerError", "RunContainerError")
)  # fmt: skip


def pod_problem(pod: KubernetesObject) -> str:
    """Return a problem that prevents a pod from running and does not end by waiting, or ""."""
    for status in pod.get("status", {}).get("containerStatuses") or []:
        waiting = status.get("state", {}).get("waiting") or {}
        if waiting.get("reason") in _STUCK:
            before = status.get("lastState", {}).get("terminated") or {}
            words = before.get("message") or waiting.get("message") or ""
            return f"{waiting['reason']}: {' '.join(str(words).split())[-500:]}".removesuffix(": ")
    return ""
