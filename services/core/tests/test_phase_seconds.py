"""Phase histograms expose what prometheus_client's own would, for fewer calls."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from microfin.process.phase_seconds import BOUNDS, PhaseSeconds, seconds_until_appended

OBSERVATIONS = st.lists(
    st.tuples(
        st.sampled_from(("queue", "apply")),
        st.one_of(st.sampled_from((0.0, *BOUNDS)), st.floats(0, 20)),
        st.integers(1, 5),
    ),
    max_size=20,
)


def samples(registry: CollectorRegistry) -> dict[Any, float]:
    """Return what a scrape shows, without when it began to count."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


@given(OBSERVATIONS)
def test_many_equal_observations_count_like_as_many_calls(
    observations: list[tuple[str, float, int]],
) -> None:
    registry, plain_registry = CollectorRegistry(), CollectorRegistry()
    phases = PhaseSeconds("x_seconds", "Text.", ("queue", "apply"), registry)
    plain = Histogram("x_seconds", "Text.", ["phase"], buckets=BOUNDS, registry=plain_registry)
    for phase in ("queue", "apply"):
        plain.labels(phase)
    for phase, seconds, times in observations:
        phases[phase].observe(seconds, times)
        for _ in range(times):
            plain.labels(phase).observe(seconds)
    assert samples(registry) == pytest.approx(samples(plain_registry))


def test_a_scrape_shows_since_when_it_counts() -> None:
    registry = CollectorRegistry()
    PhaseSeconds("x_seconds", "Text.", ("queue",), registry)
    assert 'x_seconds_created{phase="queue"} 1.' in generate_latest(registry).decode()


def test_two_metrics_of_one_name_are_refused() -> None:
    registry = CollectorRegistry()
    PhaseSeconds("x_seconds", "Text.", ("queue",), registry)
    with pytest.raises(ValueError, match="x_seconds"):
        PhaseSeconds("x_seconds", "Text.", ("queue",), registry)


@pytest.mark.parametrize(
    ("appended", "seconds"),
    [(1_003, 0.0035), (1_000, 0.0005), (999, 0.0), (0, 0.0), (1_019, 0.0195), (1_020, 0.02)],
)
def test_an_append_lies_between_sending_and_acknowledgement(appended: int, seconds: float) -> None:
    assert seconds_until_appended(1_000.0, appended, 0.02) == pytest.approx(seconds)
