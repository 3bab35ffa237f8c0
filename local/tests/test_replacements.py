"""The benchmarks of hand-made replacements measure both ways, and both do the same."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from microfin_local.benchmarks.replacements.http_protocol import measure_http_protocol
from microfin_local.benchmarks.replacements.one_round_trip import measure_one_round_trip
from microfin_local.benchmarks.replacements.phase_seconds import measure_phase_seconds
from microfin_local.benchmarks.replacements.redis_node import measure_redis_node
from microfin_local.benchmarks.replacements.side_by_side import compare

Benchmark = Callable[[int, int], Awaitable[dict[str, Any]]]

ALONE: list[Benchmark] = [measure_http_protocol, measure_phase_seconds]
ON_A_PLATFORM: list[Benchmark] = [measure_one_round_trip, measure_redis_node]


async def test_the_ratio_says_how_much_longer_the_librarys_way_takes() -> None:
    ours, theirs = iter((9.0, 1.0, 2.0, 4.0)), iter((9.0, 3.0, 4.0, 4.0))

    async def hand_made() -> float:
        return next(ours)

    async def library() -> float:
        return next(theirs)

    compared = await compare(hand_made, library, runs=3)
    assert compared["hand_made_microseconds"] == 2
    assert compared["library_microseconds"] == 4
    assert compared["saved_microseconds"] == 2
    assert [compared[f"ratio_{it}"] for it in ("least", "median", "most")] == [1, 2, 3]
    assert len(compared["runs"]) == 3


@pytest.mark.parametrize("measure", ALONE, ids=lambda it: it.__name__)
async def test_both_ways_are_measured(measure: Benchmark) -> None:
    check(await measure(1, 1000))


@pytest.mark.usefixtures("real_components")
@pytest.mark.parametrize("measure", ON_A_PLATFORM, ids=lambda it: it.__name__)
async def test_both_ways_are_measured_on_a_platform(measure: Benchmark) -> None:
    check(await measure(1, 1000))


def check(figures: dict[str, Any]) -> None:
    comparisons = _comparisons(figures)
    assert comparisons
    for compared in comparisons:
        assert compared["library_microseconds"] > 0
        assert len(compared["runs"]) == 1


def _comparisons(figures: Any) -> list[dict[str, Any]]:
    if not isinstance(figures, dict):
        return []
    if "ratio_median" in figures:
        return [figures]
    return [found for one in figures.values() for found in _comparisons(one)]
