"""Holds whose time is over are ended by the worker of their account's partition."""

from typing import Any

import pytest

from microfin.ledger.account_number import derive_account_number
from microfin.ledger.routing import partition_of
from microfin.ledger.wire import expiry_of
from microfin_worker import hold_ends
from microfin_worker.hold_ends import HoldEnds
from microfin_worker.ports import DueHold, DueHolds
from microfin_worker.status import Status
from support.clocks import ArtificialClock
from support.logs import FailingLog

PARTITIONS = 4


def due(index: int, ends: int = 1_000) -> DueHold:
    operation = f"{index:032x}"
    return DueHold(ends + index, operation, derive_account_number(operation, 0))


class ListedHolds:
    """A shard's holds whose time is over, as the worker's store gives them."""

    def __init__(self, count: int) -> None:
        self.holds = [due(index) for index in range(count)]
        self.partitions = PARTITIONS
        self.asked: list[DueHold | None] = []

    async def due_holds(self, after: DueHold | None, limit: int) -> DueHolds:
        self.asked.append(after)
        place = (-1, "") if after is None else (after.ends, after.operation)
        found = [it for it in self.holds if (it.ends, it.operation) > place]
        return DueHolds(found[:limit], self.partitions)

    def of(self, partition: int) -> list[str]:
        """Return the operations that end the holds of a partition."""
        return [
            expiry_of(it.operation)
            for it in self.holds
            if partition_of(it.account, self.partitions) == partition
        ]


class Ends:
    """The ends of partition 1's holds, and what they append."""

    def __init__(self, count: int) -> None:
        self.store: Any = ListedHolds(count)
        self.log = FailingLog()
        self.clock = ArtificialClock()
        self.status = Status(1, state="working")
        self.ends = HoldEnds(self.status, self.store, self.log, self.clock, 5.0)

    def appended(self) -> list[str]:
        assert all(partition == 1 for partition, _ in self.log.appended)
        assert all(command.kind == "expire" for _, command in self.log.appended)
        return [command.operation for _, command in self.log.appended]


async def test_the_holds_of_the_own_partition_are_ended_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hold_ends, "PAGE", 7)
    it = Ends(60)
    await it.ends.end_due()
    assert it.appended() == it.store.of(1)
    assert 0 < len(it.appended()) < 60
    await it.ends.end_due()
    assert it.appended() == it.store.of(1)
    it.store.holds.append(due(100))
    await it.ends.end_due()
    assert it.appended() == it.store.of(1)


async def test_many_at_once_are_not_in_everybodys_way() -> None:
    it = Ends(1_000)
    await it.ends.end_due()
    assert it.appended() == it.store.of(1)
    assert it.clock.slept == [hold_ends.PAUSE] * (1_000 // hold_ends.PAGE)


async def test_what_lies_before_the_cursor_is_found_later() -> None:
    it = Ends(20)
    await it.ends.end_due()
    first = it.appended()
    it.clock.milliseconds += 600_000
    await it.ends.end_due()
    assert it.appended() == [*first, *first]


async def test_with_another_routing_all_are_looked_at_again() -> None:
    it = Ends(40)
    await it.ends.end_due()
    before = it.appended()
    it.store.partitions = 2
    await it.ends.end_due()
    assert it.appended() == [*before, *it.store.of(1)]


async def test_a_failure_is_a_delay() -> None:
    """All is looked at again after it: a database that comes back may be an older one."""
    it = Ends(20)
    await it.ends.end_due()
    it.log.appended.clear()
    it.store.asked.clear()
    it.store.holds += [due(index) for index in range(20, 40)]
    it.log.failing = 1
    looks = 0

    class Enough(Exception):
        pass

    async def tick(_: float) -> None:
        nonlocal looks
        looks += 1
        assert looks < 10
        if set(it.appended()) >= set(it.store.of(1)):
            raise Enough

    it.clock.tick = tick  # type: ignore[method-assign]
    with pytest.raises(Enough):
        await it.ends.run()
    assert it.store.asked.count(None) == 1


async def test_a_worker_that_does_not_work_appends_nothing() -> None:
    it = Ends(20)
    it.status.state = "stopped"
    looks = 0

    class Enough(Exception):
        pass

    async def tick(_: float) -> None:
        nonlocal looks
        looks += 1
        if looks > 3:
            raise Enough

    it.clock.tick = tick  # type: ignore[method-assign]
    with pytest.raises(Enough):
        await it.ends.run()
    assert it.appended() == []
