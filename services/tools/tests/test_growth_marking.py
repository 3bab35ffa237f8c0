"""Markers: every worker decides them as nothing, and a cut is only where one was acknowledged."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microfin.kafka.producer import Appended, ProduceUnknown
from microfin.ledger import wire
from microfin.ledger.account_number import derive_account_number, is_account_number
from microfin.ledger.decision import decide
from microfin.ledger.records import Account, Received
from microfin.ledger.routing import Routing, partition_of
from microfin.ledger.wire import Command
from microfin_tools.growth.marking import MarkedLog, marker, marker_accounts

NOW = 1_700_000_000_000

counts = st.integers(1, 64)


@given(counts, st.data(), st.sampled_from(["open", "frozen", "closed"]))
def test_a_marker_has_no_effect_even_on_an_account_that_is_there(
    count: int, data: st.DataObject, state: str
) -> None:
    partition = data.draw(st.integers(0, count - 1))
    current, intended = Routing(3, count), Routing(4, count + 1)
    command = marker(partition, current, intended)
    account = Account(number=command.account, owner="a" * 32, currency="EUR", state=state)  # type: ignore[arg-type]
    read = wire.decode(command.account.encode(), wire.encode(command))
    assert read == command
    batch = [Received(7, NOW, read), Received(8, NOW, read)]
    for accounts in ({}, {account.number: account}):
        decided = decide(partition, current, accounts, {}, batch)
        assert [(it.status, it.reason, it.offset) for it in decided.outcomes] == [
            ("rejected", "expired", 7)
        ]
        assert not any((
            decided.entries, decided.accounts, decided.contra, decided.outbox,
            decided.quarantined, decided.answers,
        ))  # fmt: skip


@given(counts, st.data())
def test_a_marker_that_came_late_is_passed_on_as_late(count: int, data: st.DataObject) -> None:
    """It was still under way when another growth ended."""
    partition = data.draw(st.integers(0, count - 1))
    command = marker(partition, Routing(1, count), Routing(2, count + 1))
    grown = Routing(2, count + 1)
    decided = decide(partition, grown, {}, {}, [Received(7, NOW, command)])
    if partition_of(command.account, count + 1) != partition:
        (row,) = decided.outbox
        there = partition_of(command.account, count + 1)
        decided = decide(there, grown, {}, {}, [Received(9, NOW, row.command)])
    assert [(it.status, it.reason) for it in decided.outcomes] == [("rejected", "expired")]


@given(counts)
def test_each_partition_has_an_account_of_its_own_that_nobody_opens(count: int) -> None:
    numbers = marker_accounts(count)
    assert [partition_of(number, count) for number in numbers] == list(range(count))
    assert all(is_account_number(number) and number[0] == "0" for number in numbers)


@given(st.uuids(), st.integers(0, 63))
def test_an_opened_account_is_never_a_marker(operation: object, attempt: int) -> None:
    assert derive_account_number(operation.hex, attempt)[0] != "0"  # type: ignore[attr-defined]


def test_a_growth_has_one_marker_for_a_partition() -> None:
    growth = Routing(1, 4), Routing(2, 8)
    assert marker(2, *growth) == marker(2, *growth)
    others = [marker(3, *growth), marker(2, Routing(2, 4), Routing(3, 8))]
    assert len({it.operation for it in (marker(2, *growth), *others)}) == 3


class Brokers:
    """They answer with these offsets."""

    def __init__(self, *offsets: int) -> None:
        self._offsets = offsets

    async def send(self, partition: int, _command: Command) -> Appended:
        return Appended(partition, self._offsets[partition], NOW)


async def no_ends() -> dict[int, int]:
    raise AssertionError("a cut is not asked for")


async def test_a_cut_is_behind_the_marker() -> None:
    log = MarkedLog(no_ends, Brokers(0, 41))
    assert await log.mark([0, 1], Routing(1, 2), Routing(2, 4)) == {0: 1, 1: 42}


async def test_a_marker_whose_place_nobody_knows_is_no_cut() -> None:
    """A broker that took it before answers a repetition without its offset."""
    log = MarkedLog(no_ends, Brokers(3, -1))
    with pytest.raises(ProduceUnknown, match=r"partitions \[1\]"):
        await log.mark([0, 1], Routing(1, 2), Routing(2, 4))
