"""The outbox with a log that fails on demand."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from microfin.ledger.account_number import derive_account_number
from microfin.ledger.records import OutboxRow
from microfin.ledger.routing import Routing, partition_of, shard_of_account
from microfin.ledger.wire import Command
from microfin.process.clock import SystemClock
from microfin_worker.outbox import Outbox
from support.clocks import HandClock
from support.logs import FailingLog
from support.waiting import until


def row(offset: int, step: int = 0) -> OutboxRow:
    operation = f"{offset:032x}"
    return OutboxRow(
        offset,
        step,
        Command(
            kind="transfer",
            leg="credit",
            operation=operation,
            account=derive_account_number(operation, step),
            amount="1",
            currency="EUR",
        ),
    )


@pytest.fixture
def log() -> FailingLog:
    return FailingLog()


@pytest.fixture
async def outbox(log: FailingLog) -> AsyncIterator[Outbox]:
    outbox = Outbox(0, 2, log, SystemClock())
    outbox.routing = Routing(5, 4)
    task = asyncio.create_task(outbox.run())
    yield outbox
    task.cancel()


async def empty(outbox: Outbox) -> None:
    await until("all rows are acknowledged", lambda: not len(outbox), seconds=5, pause=0.01)


async def test_rows_are_sent_in_order_to_the_partition_of_their_account(
    outbox: Outbox, log: FailingLog
) -> None:
    rows = [row(offset) for offset in range(1_200)]
    outbox.add(rows)
    await empty(outbox)
    assert [command.operation for _, command in log.appended] == [
        it.command.operation for it in rows
    ]
    for partition, command in log.appended:
        assert partition == partition_of(command.account, 4)
        own_shard = shard_of_account(command.account, 2) == 0
        assert command.generation == (5 if own_shard else 0)


async def test_a_row_counts_until_it_is_acknowledged_and_is_sent_again_until_then(
    outbox: Outbox, log: FailingLog
) -> None:
    log.failing = 3
    outbox.add([row(1), row(2)])
    await asyncio.sleep(0.05)
    assert len(outbox) == 2
    assert outbox.acknowledged() == []
    await empty(outbox)
    assert sorted(outbox.acknowledged()) == [(1, 0), (2, 0)]
    outbox.deleted([(1, 0)])
    assert outbox.acknowledged() == [(2, 0)]


async def test_a_new_claim_starts_with_the_rows_that_it_has_read(
    outbox: Outbox, log: FailingLog
) -> None:
    """An append under way when the claim changes must not count as one of the new rows."""
    log.held.clear()
    outbox.add([row(1)])
    await asyncio.sleep(0.02)
    outbox.replace_all([row(1), row(2)], Routing(6, 4))
    log.held.set()
    await empty(outbox)
    assert outbox.acknowledged() == [(1, 0), (2, 0)]
    assert len(log.appended) == 3


async def test_the_oldest_row_counts_from_when_it_came_until_it_is_acknowledged() -> None:
    clock, log = HandClock(), FailingLog()
    outbox = Outbox(0, 2, log, clock)
    assert outbox.oldest_seconds() == 0
    outbox.add([row(1)])
    clock.milliseconds += 40_000
    outbox.add([row(2)])
    clock.milliseconds += 30_000
    assert outbox.oldest_seconds() == 70
    log.failing = 1  # The first row is sent again and is still the oldest.
    await outbox._send_round()
    assert outbox.acknowledged() == [(2, 0)]
    assert outbox.oldest_seconds() == pytest.approx(70)
    await outbox._send_round()
    assert outbox.oldest_seconds() == 0


async def test_a_row_that_a_claim_reads_again_keeps_its_age() -> None:
    clock = HandClock()
    outbox = Outbox(0, 2, FailingLog(), clock)
    outbox.add([row(1)])
    clock.milliseconds += 40_000
    outbox.replace_all([row(1), row(2)], Routing(6, 4))
    assert outbox.oldest_seconds() == 40
    outbox.replace_all([row(2)], Routing(6, 4))
    assert outbox.oldest_seconds() == 0
