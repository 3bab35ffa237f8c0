"""Legs that were found in shards and archives add up to the operation that a client means."""

from typing import Any
from uuid import uuid4

import pytest

from microfin.ledger.operation import Leg, Outcome
from microfin.postgres.queries import combine

ID = uuid4().hex
MONTH = 31 * 24 * 3_600_000


def leg(name: Leg, time: int, status: Any = "settled") -> Outcome:
    return Outcome(
        operation=ID,
        leg=name,
        kind="transfer",
        status=status,
        account="100000000008",
        body_hash=b"",
        offset=0,
        time=time,
        reason="insufficient_funds" if status == "rejected" else "",
    )


FIRST = [leg("request", 1_000, "debited"), leg("credit", 1_200)]


@pytest.mark.parametrize("turned", [False, True])
def test_the_newest_operation_of_an_id_counts_alone(turned: bool) -> None:
    again = leg("request", MONTH, "rejected")
    found = combine([again, *FIRST] if turned else [*FIRST, again])[ID]
    assert found is not None
    assert (found.operation.status, found.operation.time) == ("rejected", MONTH)
    assert found.legs == [again]


def test_a_leg_that_two_databases_have_counts_once() -> None:
    found = combine([*FIRST, FIRST[1]])[ID]
    assert found is not None
    assert (found.operation.status, found.legs) == ("settled", FIRST)


def test_a_credit_by_a_clock_that_is_behind_belongs_to_its_request() -> None:
    found = combine([leg("request", 60_000, "debited"), leg("credit", 0)])[ID]
    assert found is not None
    assert found.operation.status == "settled"


def test_a_credit_without_its_request_is_not_an_operation() -> None:
    assert combine([FIRST[1]]) == {ID: None}
