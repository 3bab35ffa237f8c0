"""What the operator decides about the routing."""

from datetime import timedelta

from microfin_operator.decide import decide
from microfin_operator.observation import Observation
from microfin_operator.plan import Action, Create, Delete, Plan
from support.operator import states
from support.operator.states import NOW


def jobs_of(plan: Plan) -> list[Action]:
    return [it for it in plan.actions if it.kind.name == "Job"]


def routing(plan: Plan) -> tuple[str, str]:
    condition = states.condition(plan.status, "RoutingActive")
    return condition["status"], condition["reason"]


def grown(**changes: object) -> Observation:
    """Topic and workers have six partitions, accounts are spread over three."""
    of = states.cluster(partitions=6)
    return states.at_rest(of, 6, **{"reports": states.reports(6, active=3), **changes})


def test_a_job_grows_the_routing_with_the_workers_settings() -> None:
    plan = decide(grown(), NOW)
    (created,) = jobs_of(plan)
    assert isinstance(created, Create)
    assert created.item["metadata"]["name"] == "bank-grow-6"
    spec = created.item["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert container["command"] == ["microfin", "routing", "grow", "--partitions", "6"]
    assert container["envFrom"] == [{"secretRef": {"name": "microfin-worker"}}]
    assert "readinessProbe" not in container
    assert spec["restartPolicy"] == "Never"
    assert routing(plan) == ("False", "GrowthRunning")
    assert states.condition(plan.status, "Growing")["message"] == "growing from 3 to 6 partitions"


def test_it_waits_until_every_partition_is_claimed() -> None:
    reports = states.reports(6, active=3)
    del reports[4]
    plan = decide(grown(reports=reports), NOW)
    assert jobs_of(plan) == []
    assert routing(plan) == ("False", "WaitingForWorkers")
    assert "4" in states.condition(plan.status, "RoutingActive")["message"]


def test_it_waits_until_the_topic_has_the_partitions() -> None:
    of = states.cluster(partitions=6)
    plan = decide(states.at_rest(of), NOW)
    assert jobs_of(plan) == []
    assert routing(plan) == ("False", "WaitingForTopic")


def test_one_growth_at_a_time() -> None:
    of = states.cluster(partitions=9)
    earlier = states.ended_job(of, "bank-grow-6", "Complete", NOW)
    earlier["status"] = {}
    seen = states.at_rest(of, 9, reports=states.reports(9, active=3), jobs=[earlier])
    plan = decide(seen, NOW)
    assert jobs_of(plan) == []
    assert routing(plan) == ("False", "WaitingForGrowth")


def test_shards_that_differ_are_no_active_routing_and_are_completed() -> None:
    """A growth that was killed between two shards."""
    reports = states.reports(6, active=6, generation=2) | {
        1: states.reports(6, active=3, generation=1)[1]
    }
    plan = decide(grown(reports=reports), NOW)
    assert len(jobs_of(plan)) == 1
    assert "routing" not in plan.status
    assert plan.status["partitions"]["active"] == 3
    assert states.condition(plan.status, "Growing")["status"] == "True"


def test_after_a_job_it_waits_for_the_workers_reports() -> None:
    of = states.cluster(partitions=6)
    done = states.ended_job(of, "bank-grow-6", "Complete", NOW)
    plan = decide(grown(jobs=[done]), NOW + timedelta(seconds=5))
    assert jobs_of(plan) == []
    assert routing(plan) == ("False", "Activating")
    late = decide(grown(jobs=[done]), NOW + timedelta(seconds=40))
    assert isinstance(jobs_of(late)[0], Delete)


def test_a_job_that_failed_says_why_and_is_made_anew_later() -> None:
    of = states.cluster(partitions=6)
    failed = states.ended_job(of, "bank-grow-6", "Failed", NOW)
    words = states.job_pod(of, "bank-grow-6", "No worker has partitions 5")
    seen = grown(jobs=[failed], pods=[*states.pods(of, 6), words])
    plan = decide(seen, NOW + timedelta(seconds=1))
    assert routing(plan) == ("False", "GrowthFailed")
    assert "No worker has partitions 5" in states.condition(plan.status, "Degraded")["message"]
    assert isinstance(jobs_of(decide(seen, NOW + timedelta(seconds=20)))[0], Delete)


def test_a_job_that_is_going_is_waited_for() -> None:
    of = states.cluster(partitions=6)
    going = states.ended_job(of, "bank-grow-6", "Failed", NOW)
    going["metadata"]["deletionTimestamp"] = "2026-11-23T12:00:00Z"
    assert jobs_of(decide(grown(jobs=[going]), NOW)) == []


def test_the_routing_is_in_the_status() -> None:
    of = states.cluster(partitions=6)
    plan = decide(states.at_rest(of, 6, reports=states.reports(6, generation=2)), NOW)
    assert plan.status["routing"] == {"generation": 2, "count": 6}
    assert routing(plan) == ("True", "Active")
    assert states.condition(plan.status, "Growing")["status"] == "False"
