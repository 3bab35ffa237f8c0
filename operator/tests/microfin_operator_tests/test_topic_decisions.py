"""What the operator decides about the topic."""

from datetime import timedelta
from typing import Any

import pytest

from microfin_operator.decide import decide
from microfin_operator.kinds import KAFKA_TOPIC
from microfin_operator.observation import Observation
from microfin_operator.plan import Action, Apply, Create, Delete, Plan
from microfin_operator.topic import kafka_topic
from support.operator import states
from support.operator.states import NOW

BOOTSTRAP = {"bootstrap": {"servers": "kafka:9092"}}


def applied_topic(plan: Plan) -> dict[str, Any] | None:
    found = [it for it in plan.actions if isinstance(it, Apply) and it.kind == KAFKA_TOPIC]
    return found[0].item if found else None


def in_sync(plan: Plan) -> tuple[str, str]:
    condition = states.condition(plan.status, "TopicInSync")
    return condition["status"], condition["reason"]


def test_a_new_cluster_gets_its_topic_with_the_ledgers_settings() -> None:
    of = states.cluster(topic={"strimzi": states.STRIMZI, "config": {"segment.bytes": "1048576"}})
    plan = decide(Observation(cluster=of, kafka=states.kafka("apps")), NOW)
    item = applied_topic(plan)
    assert item is not None
    assert item["metadata"]["namespace"] == "data"
    assert item["metadata"]["labels"]["strimzi.io/cluster"] == "kafka"
    assert "ownerReferences" not in item["metadata"]
    assert item["spec"] == {
        "partitions": 3,
        "replicas": 3,
        "config": {
            "retention.ms": "-1",
            "retention.bytes": "-1",
            "cleanup.policy": "delete",
            "message.timestamp.type": "LogAppendTime",
            "unclean.leader.election.enable": "false",
            "min.insync.replicas": "2",
            "max.message.bytes": "1048576",
            "segment.bytes": "1048576",
        },
    }
    assert in_sync(plan) == ("False", "Creating")


def test_nothing_is_done_at_rest() -> None:
    plan = decide(states.at_rest(states.cluster()), NOW)
    assert plan.actions == ()
    assert in_sync(plan) == ("True", "InSync")
    assert plan.status["phase"] == "Running"
    assert plan.status["partitions"] == {"topic": 3, "active": 3, "desired": 3}


def test_the_topic_grows_before_the_workers() -> None:
    of = states.cluster(partitions=6)
    plan = decide(states.at_rest(of), NOW)
    item = applied_topic(plan)
    assert item is not None
    assert item["spec"]["partitions"] == 6
    assert [type(it) for it in plan.actions] == [Apply]
    assert plan.status["partitions"] == {"topic": 3, "active": 3, "desired": 6}
    assert plan.status["phase"] == "Growing"


@pytest.mark.parametrize(
    "waiting",
    [
        {"ready": "True", "seen": False},
        {"ready": "False", "seen": False, "reason": "KafkaError"},
    ],
)
def test_workers_wait_until_strimzi_has_seen_the_new_number(waiting: dict[str, Any]) -> None:
    of = states.cluster(partitions=6)
    plan = decide(states.at_rest(of, topic=states.topic(of, 6, **waiting)), NOW)
    assert plan.actions == ()
    assert in_sync(plan) == ("False", "WaitingForTopicOperator")


def test_a_topic_that_is_not_ready_needs_a_person_and_says_why() -> None:
    of = states.cluster(partitions=6)
    found = states.topic(of, 6, "False", reason="KafkaError")
    plan = decide(states.at_rest(of, topic=found), NOW)
    assert in_sync(plan) == ("False", "TopicNotReady")
    degraded = states.condition(plan.status, "Degraded")
    assert degraded["status"] == "True"
    assert "KafkaError: as Strimzi says" in degraded["message"]


def test_a_kafka_topic_that_somebody_enlarged_is_adopted() -> None:
    of = states.cluster()
    plan = decide(states.at_rest(of, topic=states.topic(of, 6)), NOW)
    assert plan.status["partitions"] == {"topic": 6, "active": 3, "desired": 6}
    assert in_sync(plan) == ("True", "Adopted")
    message = states.condition(plan.status, "TopicInSync")["message"]
    assert "kubectl scale mfc/bank --replicas=6" in message


def test_a_topic_that_grew_behind_strimzis_back_is_adopted() -> None:
    """Strimzi then says NotSupported, and only the workers know the number."""
    of = states.cluster()
    found = states.topic(of, 3, "False", reason="NotSupported")
    reports = states.reports(3, topic_partitions=6)
    item = applied_topic(decide(states.at_rest(of, topic=found, reports=reports), NOW))
    assert item is not None
    assert item["spec"]["partitions"] == 6


def test_a_number_that_shards_do_not_divide_is_rounded_up() -> None:
    of = states.cluster(shards=2, partitions=4)
    item = applied_topic(decide(states.at_rest(of, 4, topic=states.topic(of, 5)), NOW))
    assert item is not None
    assert item["spec"]["partitions"] == 6


def test_the_default_is_rounded_up_and_nothing_was_adopted() -> None:
    """A chart leaves `partitions` out for any number of shards."""
    of = states.cluster(shards=2)
    plan = decide(states.at_rest(of, 4, topic=states.topic(of, 4)), NOW)
    assert plan.status["partitions"] == {"topic": 4, "active": 4, "desired": 4}
    assert in_sync(plan) == ("True", "InSync")


@pytest.mark.parametrize("source", ["routing", "topic", "status"])
def test_partitions_never_shrink(source: str) -> None:
    """Such as when a MicrofinCluster was deleted and made anew with fewer."""
    earlier = {"partitions": {"topic": 6, "active": 6}} if source == "status" else None
    of = states.cluster(earlier, partitions=3)
    reports = states.reports(3, active=6 if source == "routing" else 3)
    found = states.topic(of, 6 if source == "topic" else 3)
    plan = decide(states.at_rest(of, topic=found, reports=reports), NOW)
    assert plan.status["partitions"]["desired"] == 6
    item = applied_topic(plan)
    assert item is None or item["spec"]["partitions"] == 6


def test_another_clusters_topic_is_left_alone() -> None:
    of = states.cluster()
    found = states.topic(of, 6)
    found["metadata"]["annotations"]["microfin.io/owned-by"] = "apps/other"
    for seen in (states.at_rest(of, topic=found), Observation(cluster=of, topic=found)):
        assert decide(seen, NOW).actions == (), "no worker may read its commands either"
    plan = decide(states.at_rest(of, topic=found), NOW)
    assert in_sync(plan) == ("False", "TopicTaken")
    assert "apps/other" in states.condition(plan.status, "Degraded")["message"]


def in_another_namespace(*allowed: str, found: Any = None, **changes: Any) -> Plan:
    """Return what is decided of a topic that is not yet the cluster's, in namespace data."""
    of = states.cluster()
    return decide(
        Observation(cluster=of, topic=found, kafka=states.kafka(*allowed), **changes), NOW
    )


def somebodys_topic(partitions: int = 6) -> dict[str, Any]:
    found = states.topic(states.cluster(), partitions)
    found["metadata"]["annotations"] = {}
    return found


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("allowed", [(), ("other", "apps2", "ap")])
def test_a_topic_in_anothers_kafka_is_neither_made_nor_seized(
    there: bool, allowed: tuple[str, ...]
) -> None:
    plan = in_another_namespace(*allowed, found=somebodys_topic() if there else None)
    assert plan.actions == (), "no worker may read its commands either"
    assert in_sync(plan) == ("False", "TopicNotAllowed")
    assert plan.status["partitions"]["desired"] == 3, "nothing is adopted from it"
    message = states.condition(plan.status, "Degraded")["message"]
    assert "kubectl -n data annotate kafka/kafka microfin.io/allow-namespaces=apps" in message


@pytest.mark.parametrize("allowed", [("apps",), ("other", "apps")])
def test_the_owner_of_a_kafka_allows_it_by_an_annotation(allowed: tuple[str, ...]) -> None:
    assert applied_topic(in_another_namespace(*allowed)) is not None
    item = applied_topic(in_another_namespace(*allowed, found=somebodys_topic()))
    assert item is not None
    assert item["spec"]["partitions"] == 6


def test_without_the_kafka_it_says_so() -> None:
    for kind, reason in (("served", "KafkaMissing"), ("forbidden", "TopicForbidden")):
        plan = decide(Observation(cluster=states.cluster(), kafka_kind=kind), NOW)  # type: ignore[arg-type]
        assert in_sync(plan) == ("False", reason)
        assert plan.actions == ()


def test_in_its_own_namespace_nobody_has_to_allow_it() -> None:
    of = states.cluster(topic={"strimzi": {"cluster": "kafka", "namespace": "apps"}})
    assert applied_topic(decide(Observation(cluster=of), NOW)) is not None


def test_a_topic_that_is_ours_already_goes_on_without_the_annotation() -> None:
    of = states.cluster(partitions=6)
    assert applied_topic(decide(states.at_rest(of, kafka=states.kafka()), NOW)) is not None


def forced(plan: Plan) -> list[bool]:
    return [it.force for it in plan.actions if isinstance(it, Apply) and it.kind == KAFKA_TOPIC]


def test_fields_of_others_are_not_forced() -> None:
    of = states.cluster()
    assert forced(in_another_namespace("apps", found=somebodys_topic())) == [False]
    ours = states.topic(of, 3)
    grown = states.cluster(partitions=6)
    assert forced(decide(states.at_rest(grown, topic=ours), NOW)) == [True]
    ours["spec"]["config"]["retention.ms"] = "1000"
    assert forced(decide(states.at_rest(of, topic=ours), NOW)) == [True]


def test_a_setting_that_is_new_in_the_spec_is_not_forced() -> None:
    ours = states.topic(states.cluster(), 3)
    ours["spec"]["config"]["segment.bytes"] = "1"
    config = {"strimzi": states.STRIMZI, "config": {"segment.bytes": "1048576"}}
    of = states.cluster(topic=config)
    assert forced(decide(states.at_rest(of, topic=ours), NOW)) == [False]
    fields = {"f:spec": {"f:config": {"f:segment.bytes": {}}}}
    entry = {"manager": "microfin-operator", "operation": "Apply", "fieldsV1": fields}
    ours["metadata"]["managedFields"] = [entry]
    assert forced(decide(states.at_rest(of, topic=ours), NOW)) == [True]


def test_who_else_manages_a_topic_may_go_on_saying_so() -> None:
    found = somebodys_topic()
    found["metadata"]["labels"]["app.kubernetes.io/managed-by"] = "Helm"
    item = applied_topic(in_another_namespace("apps", found=found))
    assert item is not None
    assert "app.kubernetes.io/managed-by" not in item["metadata"]["labels"]


@pytest.mark.parametrize(
    ("annotation", "value", "reason"),
    [
        ("strimzi.io/managed", "false", "TopicUnmanaged"),
        ("strimzi.io/pause-reconciliation", "true", "TopicPaused"),
    ],
)
def test_a_topic_that_strimzi_must_not_change(annotation: str, value: str, reason: str) -> None:
    of = states.cluster()
    found = states.topic(of, 3)
    found["metadata"]["annotations"][annotation] = value
    found["status"]["conditions"] = []
    plan = decide(states.at_rest(of, topic=found), NOW)
    assert in_sync(plan) == ("False", reason)
    assert "remove it" in states.condition(plan.status, "TopicInSync")["message"]


def test_without_strimzi_it_says_what_to_install() -> None:
    plan = decide(Observation(cluster=states.cluster(), topic_kind="missing"), NOW)
    assert in_sync(plan) == ("False", "StrimziMissing")
    assert "topic.bootstrap" in states.condition(plan.status, "Degraded")["message"]


def test_without_permission_it_says_which_namespace_to_serve() -> None:
    seen = states.at_rest(states.cluster(), topic=None, topic_kind="forbidden")
    plan = decide(seen, NOW)
    assert in_sync(plan) == ("False", "TopicForbidden")
    assert "serve namespace data" in states.condition(plan.status, "Degraded")["message"]


def test_a_changed_setting_of_the_topic_is_applied() -> None:
    of = states.cluster()
    found = states.topic(of, 3)
    found["spec"]["config"]["retention.ms"] = "1000"
    item = applied_topic(decide(states.at_rest(of, topic=found), NOW))
    assert item is not None
    assert item["spec"]["config"]["retention.ms"] == "-1"


# Kafka without Strimzi --------------------------------------------------------------------------


def jobs_of(plan: Plan) -> list[Action]:
    return [it for it in plan.actions if it.kind.name == "Job"]


def test_without_strimzi_a_job_makes_the_topic() -> None:
    of = states.cluster(topic=BOOTSTRAP)
    (created,) = jobs_of(decide(Observation(cluster=of), NOW))
    assert isinstance(created, Create)
    assert created.item["metadata"]["name"] == "bank-topic-3"
    container = created.item["spec"]["template"]["spec"]["containers"][0]
    assert container["command"][:5] == ["microfin", "topic", "grow", "--partitions", "3"]
    assert "min.insync.replicas=2" in container["command"]
    assert {"name": "MICROFIN_KAFKA", "value": "kafka:9092"} in container["env"]
    assert container["envFrom"] == [{"secretRef": {"name": "microfin-worker"}}]


def test_a_jobs_end_is_known_before_a_worker_reports() -> None:
    of = states.cluster(topic=BOOTSTRAP)
    done = states.ended_job(of, "bank-topic-3", "Complete", NOW)
    plan = decide(Observation(cluster=of, jobs=[done]), NOW)
    assert in_sync(plan) == ("True", "InSync")
    assert jobs_of(plan) == []


def test_a_job_that_failed_says_why_and_is_made_anew_later() -> None:
    of = states.cluster(topic=BOOTSTRAP)
    failed = states.ended_job(of, "bank-topic-3", "Failed", NOW)
    words = states.job_pod(of, "bank-topic-3", "Kafka did not answer at kafka:9092")
    seen = Observation(cluster=of, jobs=[failed], pods=[words])
    soon = decide(seen, NOW + timedelta(seconds=1))
    assert jobs_of(soon) == []
    assert "Kafka did not answer" in states.condition(soon.status, "Degraded")["message"]
    (removed,) = jobs_of(decide(seen, NOW + timedelta(seconds=20)))
    assert removed == Delete(removed.kind, "apps", "bank-topic-3", "uid-bank-topic-3")


def test_workers_report_a_topic_that_grew_without_strimzi() -> None:
    of = states.cluster({"partitions": {"topic": 3, "active": 3}}, topic=BOOTSTRAP)
    plan = decide(states.at_rest(of, reports=states.reports(3, topic_partitions=6)), NOW)
    assert plan.status["partitions"] == {"topic": 6, "active": 3, "desired": 6}
    assert jobs_of(plan) == []


def test_a_topic_is_adopted_as_it_was_left() -> None:
    of = states.cluster()
    assert of.spec.topic.strimzi is not None
    once = kafka_topic(of, of.spec.topic.strimzi, 3)
    assert once == kafka_topic(of, of.spec.topic.strimzi, 3)


def test_a_kafka_topic_that_is_gone_is_not_made_again() -> None:
    """Strimzi would make an empty topic where the undecided commands were."""
    of = states.cluster({"partitions": {"topic": 6, "active": 6, "desired": 6}}, partitions=6)
    found = states.at_rest(of, 6, topic=None, kafka=states.kafka("apps"))
    plan = decide(found, NOW)
    assert applied_topic(plan) is None
    assert in_sync(plan) == ("False", "TopicGone")
    degraded = states.condition(plan.status, "Degraded")
    assert (degraded["status"], degraded["reason"]) == ("True", "TopicGone")
    assert "topic-gone" in degraded["message"]
    assert plan.status["partitions"]["topic"] == 6
    assert plan.actions == (), "the workers stay as they are, too"


def test_the_kafka_topic_that_a_person_makes_in_its_place_is_adopted() -> None:
    of = states.cluster({"partitions": {"topic": 6, "active": 6, "desired": 6}}, partitions=6)
    made = states.topic(of, 6)
    del made["metadata"]["annotations"]
    allowed = {"kafka": states.kafka("apps")}
    item = applied_topic(decide(states.at_rest(of, 6, topic=made, **allowed), NOW))
    assert item is not None
    assert item["metadata"]["annotations"]["microfin.io/owned-by"] == "apps/bank"


def test_a_job_that_grows_a_topic_does_not_make_one() -> None:
    of = states.cluster({"partitions": {"topic": 3}}, topic=BOOTSTRAP, partitions=6)
    (growing,) = (it for it in decide(states.at_rest(of), NOW).actions if isinstance(it, Create))
    assert "--existing" in str(growing.item)
    new = states.cluster(topic=BOOTSTRAP)
    (making,) = (it for it in decide(Observation(new), NOW).actions if isinstance(it, Create))
    assert "--existing" not in str(making.item)
