"""Conditions, Events and lag in the status."""

from datetime import timedelta

import msgspec

from microfin_operator.decide import decide
from support.operator import states
from support.operator.states import NOW


def test_a_condition_keeps_its_time_until_its_status_changes() -> None:
    first = decide(states.at_rest(states.cluster()), NOW).status
    later = decide(states.at_rest(states.cluster(first)), NOW + timedelta(hours=1)).status
    assert later == first
    grown = decide(states.at_rest(states.cluster(first, partitions=6)), NOW + timedelta(hours=1))
    assert states.condition(grown.status, "Ready")["lastTransitionTime"] == "2026-11-23T13:00:00Z"
    paused = states.condition(grown.status, "Paused")
    assert paused["lastTransitionTime"] == "2026-11-23T12:00:00Z"


def test_every_condition_has_its_generation() -> None:
    status = decide(states.at_rest(states.cluster()), NOW).status
    assert status["observedGeneration"] == 4
    assert {it["observedGeneration"] for it in status["conditions"]} == {4}


def test_only_what_is_new_becomes_an_event() -> None:
    first = decide(states.at_rest(states.cluster()), NOW)
    assert [it.reason for it in first.notes] == ["AllInSync", "InSync", "InSync", "Active"]
    again = decide(states.at_rest(states.cluster(first.status)), NOW)
    assert again.notes == ()


def test_a_state_that_needs_a_person_is_a_warning() -> None:
    of = states.cluster()
    plan = decide(states.at_rest(of, topic=states.topic(of, 3, "False", reason="KafkaError")), NOW)
    assert {it.type for it in plan.notes if it.reason == "TopicNotReady"} == {"Normal", "Warning"}


def test_lag_is_reported_by_partition_and_in_sum() -> None:
    reports = states.reports(3)
    reports[1] = msgspec.structs.replace(reports[1], lag_records=7, lag_seconds=2.9)
    status = decide(states.at_rest(states.cluster(), reports=reports), NOW).status
    assert status["lag"][1] == {"partition": 1, "records": 7, "seconds": 2}
    assert status["lagRecords"] == 7


def test_a_refusal_of_the_api_server_is_reported() -> None:
    seen = states.at_rest(states.cluster(partitions=6))
    plan = decide(seen, NOW, refusal="the API server answered 422: spec.template is invalid")
    degraded = states.condition(plan.status, "Degraded")
    assert (degraded["status"], degraded["reason"]) == ("True", "Refused")
    assert "spec.template is invalid" in degraded["message"]


def test_workers_that_are_cut_off_from_kafka_are_said_and_have_no_lag() -> None:
    first = decide(states.at_rest(states.cluster()), NOW).status
    assert states.condition(first, "Connected")["status"] == "True"
    reports = {
        ordinal: msgspec.structs.replace(
            it, state="disconnected", reason="Kafka does not answer", unreachable=["Kafka"]
        )
        for ordinal, it in states.reports(3).items()
    }
    plan = decide(states.at_rest(states.cluster(first), reports=reports), NOW)
    ready = states.condition(plan.status, "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "Disconnected")
    assert "Kafka does not answer" in ready["message"]
    connected = states.condition(plan.status, "Connected")
    assert (connected["status"], connected["reason"]) == ("False", "KafkaSilent")
    assert connected["message"] == "Kafka does not answer 3 workers, of partition 0, 1, 2"
    assert (plan.status["readyReplicas"], plan.status["lag"]) == (0, [])
    assert ("Warning", "KafkaSilent") in {(it.type, it.reason) for it in plan.notes}


def test_workers_without_redis_are_ready_and_it_is_said() -> None:
    reports = states.reports(3)
    reports[1] = msgspec.structs.replace(reports[1], unreachable=["Redis"])
    status = decide(states.at_rest(states.cluster(), reports=reports), NOW).status
    assert states.condition(status, "Ready")["status"] == "True"
    connected = states.condition(status, "Connected")
    assert (connected["status"], connected["reason"]) == ("False", "RedisSilent")


def test_without_a_report_nobody_knows_what_answers() -> None:
    status = decide(states.at_rest(states.cluster(), reports={}), NOW).status
    assert states.condition(status, "Connected")["status"] == "Unknown"
