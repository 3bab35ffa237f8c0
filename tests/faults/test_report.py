"""Schedules replay, and results add up."""

import msgspec

from faults.history import Answer, Asked, Attempt, History
from faults.measuring import WITHIN, measure
from faults.nemesis import Injected
from faults.report import add_up, as_markdown
from faults.results import Result
from faults.schedule import GROWTH, LIFE, WORKERS, Fault, Plan, plan

ACCOUNT = "100000000008"
LOST = Fault("kill", ("postgres-0",))
KILLED = Fault("kill", ("worker-0",))


def test_a_seed_replays_its_schedule() -> None:
    assert [plan(7, it) for it in range(60)] == [plan(7, it) for it in range(60)]
    assert [plan(7, it) for it in range(60)] != [plan(8, it) for it in range(60)]


def test_every_life_grows_twice_from_the_same_beginning() -> None:
    for seed in range(20):
        for life in range(3):
            plans = [plan(seed, life * LIFE + place) for place in range(LIFE)]
            assert plans[0].partitions == WORKERS
            assert [it.grow_to for it in plans if it.grow_to] == [
                WORKERS + GROWTH,
                WORKERS + 2 * GROWTH,
            ]


def test_all_kinds_of_faults_are_drawn() -> None:
    kinds = {fault.kind for it in range(400) for fault in plan(1, it).faults}
    assert kinds == {
        *("kill", "freeze", "stop", "absence", "zombie", "replies cut"),
        *("drop", "delay", "hold", "vanish", "disk full", "clock"),
    }


def test_losses_of_the_database_the_broker_majority_and_the_client_are_excused() -> None:
    excused = ("postgres-0",), ("worker-pgbouncer",), ("kafka-1", "kafka-2"), ("client-nginx",)
    counted = (
        ("worker-1",),
        ("kafka-1",),
        ("api-kafka-3",),
        ("redis-0", "redis-1"),
        ("nginx-api-0",),
    )
    assert all(Fault("drop", it).excused for it in excused)
    assert not any(Fault("drop", it).excused for it in counted)


def _asked(sent: float, answered: float | None) -> Asked:
    ended = sent + 20 if answered is None else answered
    return Asked(
        f"{sent}",
        "key",
        "deposit",
        "user",
        ACCOUNT,
        amount=1,
        attempts=[Attempt(sent, ended, 200, "unknown" if answered is None else "final")],
        acknowledged=answered,
        answered=answered,
        answers=[] if answered is None else [Answer("settled")],
    )


def _result(fault: Fault, number: int, *asked: Asked) -> Result:
    injected = [Injected(fault, 10.0, 12.0)]
    return Result(
        seed=1,
        round=number,
        commit="c",
        faults=fault.name,
        plan=Plan(number, 1, (fault,)),
        measured=measure(History(list(asked)), injected, 0.0, 30.0, 1),
        findings=[],
        seconds=30.0,
    )


def test_availability_is_that_of_the_fault_and_five_seconds_longer() -> None:
    before, late = _asked(1.0, 1.1), _asked(12.0 + WITHIN + 0.1, None)
    slow, quick = _asked(11.0, 11.0 + WITHIN + 0.1), _asked(12.5, 13.0)
    result = _result(KILLED, 0, before, slow, quick, late)
    (broken,) = result.measured.faults
    assert (broken.operations.good, broken.operations.all) == (1, 2)
    assert broken.settled_after == 1.0
    assert broken.late == 1


def test_what_its_client_gave_up_at_once_does_not_count() -> None:
    given_up = _asked(11.0, None)
    given_up.abandoned, given_up.attempts[0].ended = True, 11.5
    result = _result(KILLED, 0, given_up, _asked(12.5, 13.0))
    assert result.measured.faults[0].operations.all == 1
    assert result.measured.abandoned == 1


def test_the_report_counts_faults_that_are_not_excused() -> None:
    results = [
        _result(KILLED, 0, _asked(11.0, 12.5)),
        _result(LOST, 1, _asked(11.0, None), _asked(12.0, 12.5)),
    ]
    report = add_up(results)
    assert report.availability == 1.0
    assert report.settling_after_return == 0.5
    assert {it.name: it.excused for it in report.kinds} == {
        "kill worker": False,
        "kill postgres": True,
    }
    assert "kill postgres *" in as_markdown(report)
    grown = msgspec.structs.replace(results[0], plan=Plan(2, 1, (), 2))
    (growth,) = add_up([grown]).kinds
    assert (growth.name, growth.alone, growth.operations.all) == ("growth", 1, 1)
    assert msgspec.json.decode(msgspec.json.encode(results[0]), type=Result) == results[0]
