"""The rules between the times of leases and growths (`microfin.ledger.lease`)."""

from microfin.ledger.lease import (
    ACTIVATION_LOCK_SECONDS,
    ACTIVATION_SECONDS,
    CLOCK_RATE_TOLERANCE,
    CUT_SECONDS,
    GROWTH_WAIT_SECONDS,
    HOLD_SECONDS,
    IDLE_RENEWAL_SECONDS,
    LEASE_SECONDS,
    RENEWAL_SECONDS,
    STALE_INTENT_SECONDS,
)


def test_one_late_renewal_does_not_end_a_lease() -> None:
    assert 2 * RENEWAL_SECONDS <= 2 * IDLE_RENEWAL_SECONDS < LEASE_SECONDS


def test_every_lease_from_before_the_intent_ends_before_the_cuts() -> None:
    slowest_clock = LEASE_SECONDS * (1 + CLOCK_RATE_TOLERANCE)
    assert LEASE_SECONDS < slowest_clock <= GROWTH_WAIT_SECONDS


def test_a_growth_that_passes_its_cuts_in_time_can_still_activate() -> None:
    assert GROWTH_WAIT_SECONDS + CUT_SECONDS < ACTIVATION_SECONDS


def test_an_intent_that_may_be_replaced_cannot_be_activated() -> None:
    assert ACTIVATION_SECONDS + ACTIVATION_LOCK_SECONDS <= STALE_INTENT_SECONDS


def test_processes_hold_until_the_intent_was_stale_for_a_whole_lease() -> None:
    assert STALE_INTENT_SECONDS + LEASE_SECONDS <= HOLD_SECONDS
