"""When a worker checks that the log is still the one it decided from, and what it detects."""

import pytest

from microfin_worker.fingerprint import fingerprint
from microfin_worker.log_recognition import LastSight, LogLost, recognise_again
from microfin_worker.ports import Record
from support.clocks import ArtificialClock
from support.logs import ScriptedLog

OLD, OTHER = (Record(4, 1_000, b"key", value) for value in (b"decided", b"of another log"))


@pytest.mark.parametrize(
    ("next_offset", "unseen", "newest", "may_be_replaced"),
    [
        (2, 0.05, 50_000, False),
        (2, 0.2, 50_000, True),
        (99_999, 0.2, 50_000, True),
        (100_000, 0.2, 50_000, False),
        (100_000, 5.9, 55_000, False),
        (100_000, 6.1, 50_000, True),
        (100_000, 0.0, 55_900, False),
        (100_000, 0.0, 56_100, True),
    ],
)
def test_a_log_may_be_another_one(
    next_offset: int, unseen: float, newest: int, may_be_replaced: bool
) -> None:
    """A young log soon, any log after six seconds, even if a frozen machine missed them."""
    clock = ArtificialClock()
    sight = LastSight(clock)
    clock.milliseconds += int(1000 * unseen)
    assert sight.may_be_replaced(next_offset, newest) is may_be_replaced
    sight.renew(sight.now())
    assert not sight.may_be_replaced(next_offset, clock.milliseconds)


def test_an_answer_is_as_old_as_its_question() -> None:
    """A process that is frozen before it reads the answer has not seen the log since."""
    clock = ArtificialClock()
    sight = LastSight(clock)
    asked = sight.now()
    clock.milliseconds += 60_000
    sight.renew(asked)
    assert sight.may_be_replaced(1_000_000, 50_000)


async def test_the_log_is_recognised_in_one_round_trip() -> None:
    log = ScriptedLog(OLD)
    await recognise_again(log, ArtificialClock(), 5, fingerprint(OLD))
    assert log.asked == ["reread"]


async def test_another_log_is_not() -> None:
    with pytest.raises(LogLost, match="was replaced"):
        await recognise_again(ScriptedLog(OTHER), ArtificialClock(), 5, fingerprint(OLD))


async def test_a_log_that_was_trimmed_up_to_here_is() -> None:
    log = ScriptedLog(None, start=5)
    await recognise_again(log, ArtificialClock(), 5, fingerprint(OLD))
    assert log.asked == ["reread", "bounds"]


async def test_before_the_first_decision_there_is_nothing_to_recognise() -> None:
    log = ScriptedLog(OTHER)
    await recognise_again(log, ArtificialClock(), 0, None)
    assert log.asked == ["bounds"]
