"""For how long a part has been silent, also when its answers are noted late."""

from collections.abc import Callable

import pytest

from microfin.process import silence
from microfin.process.silence import Silence


@pytest.fixture
def wait(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    now = 100.0

    def go_on(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(silence.time, "monotonic", lambda: now)
    return go_on


def test_silence_begins_with_the_last_answer_not_with_when_it_was_noted(
    wait: Callable[[float], None],
) -> None:
    kafka = Silence("Kafka", 3.5)
    wait(10)
    kafka.answered(108.0)
    wait(1)
    kafka.ask()
    assert kafka.seconds() == 3.0


def test_an_answer_from_before_the_silence_does_not_end_it(
    wait: Callable[[float], None],
) -> None:
    kafka = Silence("Kafka", 3.5)
    kafka.ask()
    wait(10)
    kafka.answered(100.0)
    assert kafka.seconds() == 10.0
    wait(1)
    kafka.answered(100.0)
    assert kafka.seconds() == 11.0
    kafka.answered(106.0)
    assert kafka.seconds() == 0
