"""The phases of a command are, together, the time of its answer."""

import asyncio

import pytest
from prometheus_client import REGISTRY

import microfin_api.phases
from microfin_api import metrics
from microfin_api.phases import CommandPhases
from support.api_under_test import Api, Ledger, User

PHASES = ("admit", "produce", "wait", "respond")
ROUTES = ("/api/accounts", "/api/deposit", "/api/withdraw", "/api/transfer")


class ArtificialTime:
    """What of the module `time` is used; both clocks go on only when the test moves them."""

    def __init__(self) -> None:
        self.seconds = 100.0
        self.ahead = 0.0

    def monotonic(self) -> float:
        return self.seconds

    def time(self) -> float:
        return 1_700_000_000 + self.seconds + self.ahead

    def broker(self) -> int:
        """Return the broker's clock, which our wall clock may be ahead of."""
        return int(1000 * (1_700_000_000 + self.seconds))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> ArtificialTime:
    clock = ArtificialTime()
    monkeypatch.setattr(microfin_api.phases, "time", clock)
    return clock


def observed() -> dict[str, tuple[int, float]]:
    """Return for each phase how often it was observed, and its sum."""
    phases = {name: metrics.PHASE_SECONDS[name] for name in PHASES}
    return {name: (sum(phase.counts), phase.sum) for name, phase in phases.items()}


def change(before: dict[str, tuple[int, float]]) -> dict[str, tuple[int, float]]:
    after = observed()
    return {
        name: (after[name][0] - before[name][0], after[name][1] - before[name][1])
        for name in PHASES
    }


@pytest.mark.parametrize(
    ("ahead", "acknowledged_late", "produce"),
    [
        (0.0, False, 0.0085),
        (0.0, True, 0.0085),
        (3.0, False, 0.0),
        (-3.0, False, 0.010),
        (-3.0, True, 0.030),
    ],
)
def test_they_add_up_whatever_the_clocks_say(
    clock: ArtificialTime, ahead: float, acknowledged_late: bool, produce: float
) -> None:
    """An append lies between the sending and the acknowledgement or the outcome."""
    clock.ahead = ahead
    before = observed()
    phases = CommandPhases(clock.seconds)
    clock.seconds += 0.002
    phases.sent()
    clock.seconds += 0.008
    appended = clock.broker()
    clock.seconds += 0.002
    if not acknowledged_late:
        phases.acknowledged(appended)
    clock.seconds += 0.020
    phases.settled(clock.seconds)
    clock.seconds += 0.001
    phases.ended(clock.seconds)
    if acknowledged_late:
        assert change(before) == dict.fromkeys(PHASES, (0, 0.0))
        clock.seconds += 0.5
        phases.acknowledged(appended)
    found = change(before)
    assert {count for count, _ in found.values()} == {1}
    assert sum(seconds for _, seconds in found.values()) == pytest.approx(0.033)
    assert found["admit"][1] == pytest.approx(0.002)
    assert found["respond"][1] == pytest.approx(0.001)
    assert found["produce"][1] == pytest.approx(produce, abs=0.00051)


def test_a_command_whose_outcome_was_not_the_answer_is_left_out(clock: ArtificialTime) -> None:
    before = observed()
    phases = CommandPhases(clock.seconds)
    phases.sent()
    phases.acknowledged(clock.broker())
    phases.ended(clock.seconds)
    assert change(before) == dict.fromkeys(PHASES, (0, 0.0))


def answers() -> tuple[float, float]:
    """Return how many requests to the routes of commands were answered, and their time."""

    def total(name: str) -> float:
        labels = [{"method": "POST", "route": route} for route in ROUTES]
        return sum(REGISTRY.get_sample_value(name, each) or 0.0 for each in labels)

    name = "microfin_api_request_seconds"
    return total(f"{name}_count"), total(f"{name}_sum")


async def test_the_phases_of_real_commands_are_the_time_of_their_answers(
    api: Api, ledger: Ledger, user: User
) -> None:
    """Deposits, transfers within and between partitions, openings, and a rejection."""
    before, (count, seconds) = observed(), answers()
    numbers = await asyncio.gather(*(user.account(balance="100") for _ in range(6)))
    for receiver in numbers[1:]:
        body = {"senderAccountNumber": numbers[0], "receiverAccountNumber": receiver, "amount": "1"}
        assert (await user.client.post("/api/transfer", json=body)).status_code == 200
    body = {"accountNumber": numbers[0], "amount": "1000"}
    assert (await user.client.post("/api/withdraw", json=body)).status_code == 422
    await api.services.submission.finish(10)
    found = change(before)
    now_count, now_seconds = answers()
    assert now_count - count == 6 + 6 + 5 + 1
    assert {count for count, _ in found.values()} == {18}
    assert sum(it for _, it in found.values()) == pytest.approx(now_seconds - seconds)
    assert min(it for _, it in found.values()) > 0


async def test_an_accepted_command_has_no_phases_but_an_acknowledgement(
    api: Api, user: User
) -> None:
    number = await user.account()
    name = "microfin_api_acknowledge_seconds_count"
    before, acknowledged = observed(), REGISTRY.get_sample_value(name)
    body = {"accountNumber": number, "amount": "1"}
    headers = {"Prefer": "respond-async"}
    answer = await user.client.post("/api/deposit", json=body, headers=headers)
    assert answer.status_code == 202
    await api.services.submission.finish(10)
    assert acknowledged is not None
    assert REGISTRY.get_sample_value(name) == acknowledged + 1
    assert change(before) == dict.fromkeys(PHASES, (0, 0.0))
