"""The pauses between batches, and when a worker does not pause."""

import asyncio

import pytest

from microfin_worker.pacing import COMMITS, LONGEST_SECONDS, Pacing
from support.clocks import ArtificialClock

LIMIT = 500


@pytest.mark.parametrize(
    ("found", "took", "waits"),
    [
        (1, 0.0, 0.0),
        (2, 0.0, 0.5),
        (2, 0.25, 0.25),
        (2, 0.5, 0.0),
        (LIMIT - 1, 0.0, 0.5),
        (LIMIT, 0.0, 0.0),
    ],
)
def test_only_a_few_that_came_together_are_a_sign_of_load(
    found: int, took: float, waits: float
) -> None:
    clock = ArtificialClock()
    pacing = Pacing(0.5, LIMIT)
    pacing.begin(found, clock.monotonic())
    clock.milliseconds += int(1000 * took)
    asyncio.run(pacing.pause(clock))
    assert sum(clock.slept) == waits


def pause(commits: list[float], interval: float = 0.012) -> float:
    """Return the pause after a batch of two commands, when commits took this many seconds."""
    pacing = Pacing(interval, LIMIT)
    for seconds in commits:
        pacing.committed(seconds)
    pacing.begin(2, 0.0)
    return pacing.left(0.0)


def test_slow_commits_make_longer_pauses() -> None:
    assert pause([]) == 0.012
    assert pause([0.002] * 50) == 0.012
    assert pause([0.008] * 50) == pytest.approx(COMMITS * 0.008, rel=0.01)


def test_one_slow_commit_changes_little() -> None:
    assert pause([0.002] * 50 + [0.01] + [0.002] * 5) == 0.012


def test_a_stalled_database_makes_no_long_pause() -> None:
    assert pause([3.0] * 50) == LONGEST_SECONDS


def test_a_longer_interval_stays() -> None:
    assert pause([3.0] * 50, interval=0.2) == 0.2


def test_without_an_interval_there_is_no_pause() -> None:
    assert pause([0.008] * 50, interval=0.0) == 0.0
