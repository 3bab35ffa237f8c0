"""What the operator decides about the workers."""

from typing import Any

import msgspec
import pytest

from microfin_operator.decide import decide
from microfin_operator.kinds import STATEFUL_SET
from microfin_operator.observation import Observation
from microfin_operator.plan import Apply, Plan
from support.operator import states
from support.operator.states import NOW


def applied(plan: Plan) -> list[str]:
    return [it.kind.name for it in plan.actions if isinstance(it, Apply)]


def applied_set(plan: Plan) -> dict[str, Any]:
    (found,) = [it for it in plan.actions if isinstance(it, Apply) and it.kind == STATEFUL_SET]
    return found.item


def workers(plan: Plan) -> tuple[str, str]:
    condition = states.condition(plan.status, "WorkersInSync")
    return condition["status"], condition["reason"]


def test_a_new_cluster_gets_service_budget_and_workers() -> None:
    of = states.cluster()
    plan = decide(Observation(cluster=of, topic=states.topic(of, 3)), NOW)
    assert applied(plan) == ["Service", "PodDisruptionBudget", "StatefulSet"]
    spec = applied_set(plan)["spec"]
    assert (spec["replicas"], spec["podManagementPolicy"]) == (3, "Parallel")
    owner = applied_set(plan)["metadata"]["ownerReferences"][0]
    assert (owner["uid"], owner["controller"]) == ("uid-bank", True)


def test_there_are_as_many_workers_as_the_topic_has_partitions() -> None:
    of = states.cluster(partitions=6)
    found = states.topic(of, 6)
    plan = decide(states.at_rest(of, topic=found, **states.workload(of, 3)), NOW)
    assert applied_set(plan)["spec"]["replicas"] == 6
    assert workers(plan) == ("False", "Scaling")


def test_workers_stay_while_the_number_of_partitions_is_unknown() -> None:
    """The KafkaTopic has not been looked at yet, and no worker answers."""
    of = states.cluster({"partitions": {"topic": 6, "active": 3}}, partitions=9)
    stale = states.topic(of, 9, seen=False)
    plan = decide(states.at_rest(of, 6, topic=stale, reports={}), NOW)
    assert plan.actions == ()
    assert plan.status["partitions"]["topic"] == 6


@pytest.mark.parametrize("by_hand", [1, 9])
def test_a_number_of_workers_set_by_hand_is_restored_with_an_event(by_hand: int) -> None:
    of = states.cluster()
    seen = states.at_rest(of)
    assert seen.stateful_set is not None
    seen.stateful_set["spec"]["replicas"] = by_hand
    plan = decide(seen, NOW)
    assert applied_set(plan)["spec"]["replicas"] == 3
    (note,) = [it for it in plan.notes if it.reason == "ReplicasRestored"]
    assert (note.type, "kubectl scale mfc/bank" in note.message) == ("Warning", True)


def test_growing_is_no_restoring() -> None:
    of = states.cluster(partitions=6)
    plan = decide(states.at_rest(of, topic=states.topic(of, 6), **states.workload(of, 3)), NOW)
    assert "ReplicasRestored" not in [it.reason for it in plan.notes]


def test_a_field_changed_by_hand_is_set_back() -> None:
    of = states.cluster()
    seen = states.at_rest(of)
    assert seen.stateful_set is not None
    template = seen.stateful_set["spec"]["template"]["spec"]
    template["automountServiceAccountToken"] = True
    assert not applied_set(decide(seen, NOW))["spec"]["template"]["spec"][
        "automountServiceAccountToken"
    ]


def test_a_field_that_is_no_longer_wanted_is_removed() -> None:
    before = states.cluster(worker={"podTemplate": {"spec": {"nodeSelector": {"disk": "ssd"}}}})
    after = states.cluster()
    plan = decide(states.at_rest(after, **states.workload(before, 3)), NOW)
    assert "nodeSelector" not in applied_set(plan)["spec"]["template"]["spec"]


def test_a_new_image_is_rolled_out_by_the_stateful_sets_controller() -> None:
    before, after = states.cluster(), states.cluster(worker={"image": "worker:2"})
    plan = decide(states.at_rest(after, **states.workload(before, 3)), NOW)
    item = applied_set(plan)
    assert item["spec"]["updateStrategy"] == {"type": "RollingUpdate"}
    assert item["spec"]["template"]["spec"]["containers"][0]["image"] == "worker:2"
    assert workers(plan) == ("False", "Applying")


def test_it_reports_the_progress_of_a_roll_out() -> None:
    of = states.cluster({"partitions": {"topic": 3, "active": 3}})
    seen = states.at_rest(of)
    assert seen.stateful_set is not None
    seen.stateful_set["status"] |= {"updateRevision": "b", "updatedReplicas": 1}
    plan = decide(seen, NOW)
    assert workers(plan) == ("False", "Rolling")
    assert plan.status["phase"] == "Rolling"
    assert "1 of 3" in states.condition(plan.status, "WorkersInSync")["message"]


def test_it_reports_which_partition_waits_for_what() -> None:
    of = states.cluster()
    reports = states.reports(3)
    reports[1] = msgspec.structs.replace(reports[1], state="retrying", reason="no database")
    plan = decide(states.at_rest(of, reports=reports), NOW)
    assert workers(plan) == ("False", "WaitingForClaims")
    message = states.condition(plan.status, "WorkersInSync")["message"]
    assert "partition 1's worker is retrying: no database" in message
    assert states.condition(plan.status, "Ready")["status"] == "False"
    assert (plan.status["replicas"], plan.status["readyReplicas"]) == (3, 2)


def test_a_worker_that_is_ending_is_no_worker() -> None:
    of = states.cluster()
    seen = states.at_rest(of)
    seen.worker_pods[2]["metadata"]["deletionTimestamp"] = "2026-11-23T12:00:00Z"
    plan = decide(seen, NOW)
    assert workers(plan) == ("False", "WaitingForClaims")


def test_workers_that_cannot_be_asked_hint_at_the_network_policy() -> None:
    plan = decide(states.at_rest(states.cluster(), reports={}), NOW)
    assert "NetworkPolicy" in states.condition(plan.status, "WorkersInSync")["message"]
    assert states.condition(plan.status, "RoutingActive")["status"] == "Unknown"


def test_a_worker_that_has_stopped_needs_a_person() -> None:
    reports = states.reports(3)
    reports[0] = msgspec.structs.replace(reports[0], state="stopped", reason="the log was lost")
    plan = decide(states.at_rest(states.cluster(), reports=reports), NOW)
    assert workers(plan) == ("False", "WorkerBroken")
    assert "the log was lost" in states.condition(plan.status, "Degraded")["message"]
    assert plan.status["phase"] == "Degraded"


def test_a_pod_that_cannot_start_needs_a_person() -> None:
    of = states.cluster()
    found = states.pods(of, 3)
    waiting = {"reason": "ImagePullBackOff", "message": "not found"}
    found[2]["status"] = {"containerStatuses": [{"state": {"waiting": waiting}}]}
    plan = decide(states.at_rest(of, pods=found, reports=states.reports(2, 3, 3)), NOW)
    assert (
        "bank-worker-2: ImagePullBackOff: not found"
        in (states.condition(plan.status, "Degraded")["message"])
    )


@pytest.mark.parametrize(
    "owners", [[], [{"kind": "X", "name": "y", "uid": "z", "controller": True}]]
)
def test_what_is_not_ours_is_left_alone(owners: list[dict[str, Any]]) -> None:
    of = states.cluster()
    found = states.workload(of, 3)
    found["stateful_set"]["metadata"] |= {"ownerReferences": owners, "labels": {}}
    plan = decide(states.at_rest(of, **found), NOW)
    assert applied(plan) == []
    assert workers(plan) == ("False", "NameTaken")


def test_an_orphan_of_ours_is_adopted() -> None:
    of = states.cluster()
    found = states.workload(of, 3)
    found["stateful_set"]["metadata"]["ownerReferences"] = []
    assert applied(decide(states.at_rest(of, **found), NOW)) == ["StatefulSet"]


def test_a_paused_cluster_is_only_watched() -> None:
    of = states.cluster(paused=True, partitions=6)
    plan = decide(states.at_rest(of), NOW)
    assert plan.actions == ()
    assert plan.status["phase"] == "Paused"
    assert states.condition(plan.status, "Paused")["status"] == "True"
