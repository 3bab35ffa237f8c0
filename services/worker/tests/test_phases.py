"""A worker's phases, by a clock that advances only while a component of the platform works."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Sequence

import pytest
from msgspec.structs import replace

import microfin_worker.tenure
from microfin.ledger.account_number import derive_account_number
from microfin.ledger.operation import Outcome
from microfin.ledger.records import Account, Answer, Hold, LegKey
from microfin.ledger.routing import Routing, partition_of
from microfin.ledger.wire import Command
from microfin.redis.account_cache import CachedAccount
from microfin_worker import metrics
from microfin_worker.limits import Limits
from microfin_worker.phases import BatchPhases
from microfin_worker.ports import BatchWrite, Claim, PartitionRow, Place, Ports, Record
from microfin_worker.worker import Worker
from support.clocks import HandClock
from support.logs import SlowLog

PHASES = ("queue", "apply", "commit", "notify", "produce")
ROUTING = Routing(1, 2)
USER = "0" * 32


class SlowStore:
    """A new partition; each of its calls lasts a different time."""

    def __init__(self, clock: HandClock) -> None:
        self.clock = clock
        self.row = PartitionRow(0, 1, 0, None, ROUTING)

    async def claim(self, _held: int | None = None) -> Claim:
        return Claim(self.row, [])

    async def commit(self, place: Place, write: BatchWrite) -> None:
        await self.write(place, write)
        await self.clock.spend(20)

    @contextlib.asynccontextmanager
    async def transaction(self) -> "AsyncIterator[SlowStore]":
        yield self
        await self.clock.spend(20)

    async def lock(self) -> PartitionRow:
        await self.clock.spend(1)
        return self.row

    async def known_outcomes(self, _keys: Sequence[LegKey]) -> dict[LegKey, Outcome]:
        await self.clock.spend(2)
        return {}

    async def holds(self, _ids: Sequence[str]) -> dict[str, Hold]:
        return {}

    async def accounts(self, _numbers: Sequence[str]) -> dict[str, Account]:
        await self.clock.spend(4)
        return {}

    async def write(self, _place: Place, write: BatchWrite) -> None:
        await self.clock.spend(20)
        self.row = replace(self.row, next_offset=write.next_offset)

    async def idle_seconds(self) -> float:
        return 0.0


class SlowRedis:
    """The cache and the replies; notes when each answer was published."""

    def __init__(self, clock: HandClock) -> None:
        self.clock = clock
        self.published: dict[str, int] = {}

    async def put(self, _accounts: Iterable[CachedAccount]) -> None:
        await self.clock.spend(1)

    async def send(self, answers: Sequence[Answer]) -> None:
        await self.clock.spend(2)
        for answer in answers:
            self.published[answer.operation.operation] = self.clock.now()


def opened(index: int, partition: int) -> Command:
    """Return the opening of an account on `partition`."""
    for attempt in range(100):
        operation = f"{index:016x}{attempt:016x}"
        number = derive_account_number(operation, 0)
        if partition_of(number, ROUTING.partition_count) == partition:
            return Command(
                kind="open",
                leg="request",
                operation=operation,
                account=number,
                user=USER,
                currency="EUR",
                generation=1,
                reply=f"api/{index}",
            )
    raise AssertionError("no number on this partition")


def deposits(account: str, number: int) -> list[Command]:
    return [
        Command(
            kind="deposit",
            leg="request",
            operation=f"d{index:031x}",
            account=account,
            user=USER,
            amount="10",
            generation=1,
            reply=f"api/{index}",
        )
        for index in range(number)
    ]


def observed() -> dict[str, tuple[int, float]]:
    """Return for each phase how often it was observed, and its sum."""
    phases = {name: metrics.PHASE_SECONDS[name] for name in PHASES}
    return {name: (sum(phase.counts), phase.sum) for name, phase in phases.items()}


async def work(
    clock: HandClock, commands: Sequence[Command], batch: int
) -> tuple[dict[str, tuple[int, float]], SlowLog, SlowRedis]:
    """Let a worker decide `commands`; return what it observed."""
    log, redis = SlowLog(clock, commands), SlowRedis(clock)
    ports = Ports(log=log, store=SlowStore(clock), replies=redis, cache=redis, clock=clock)
    worker = Worker(0, 1, ports, Limits(batch=batch))
    before = observed()
    running = asyncio.create_task(worker.run())
    async with asyncio.timeout(10):
        while worker.status.commands < len(commands):  # noqa: ASYNC110 - nobody sets an event
            await asyncio.sleep(0.001)
        worker.stop()
        await running
    after = observed()
    change = {
        name: (after[name][0] - before[name][0], after[name][1] - before[name][1])
        for name in PHASES
    }
    return change, log, redis


@pytest.mark.parametrize("look_up_batches", [0, 100])
async def test_phases_of_each_command_add_up_to_the_time_until_its_answer(
    monkeypatch: pytest.MonkeyPatch, look_up_batches: int
) -> None:
    """Both when decided ahead, while another batch is committed, and inside the transaction."""
    monkeypatch.setattr(microfin_worker.tenure, "LOOK_UP_BATCHES", look_up_batches)
    clock = HandClock()
    opening = opened(1, 0)
    commands = [opening, *deposits(opening.account, 120)]
    phases, log, redis = await work(clock, commands, batch=50)
    assert {name: phases[name][0] for name in PHASES} == {
        **dict.fromkeys(("queue", "apply", "commit", "notify"), 121),
        "produce": 0,
    }
    whole = sum(
        redis.published[command.operation] - record.time
        for command, record in zip(commands, log.records, strict=True)
    )
    # The metrics count for the session: after tests with old records their sums are large, and
    # their difference has rounding errors. All phases are whole milliseconds.
    assert sum(seconds for _, seconds in phases.values()) == pytest.approx(whole / 1000, abs=0.0005)
    assert all(seconds > 0 for count, seconds in phases.values() if count)


async def test_the_phases_of_a_batch_that_is_decided_in_its_transaction() -> None:
    clock = HandClock()
    phases, _, _ = await work(clock, [opened(1, 0)], batch=50)
    milliseconds = {name: round(1000 * seconds) for name, (_, seconds) in phases.items()}
    assert milliseconds == {"queue": 103, "apply": 7, "commit": 40, "notify": 3, "produce": 0}


async def test_a_command_that_is_sent_on_is_produced_and_not_yet_answered() -> None:
    """Its receiver's partition observes the rest, and answers."""
    clock = HandClock()
    sender, receiver = opened(1, 0), opened(2, 1)
    transfer = Command(
        kind="transfer",
        leg="request",
        operation="e" * 32,
        account=sender.account,
        user=USER,
        counterparty=receiver.account,
        amount="1",
        generation=1,
        reply="api/x",
    )
    commands = [sender, *deposits(sender.account, 1), transfer]
    phases, _, redis = await work(clock, commands, batch=50)
    assert "e" * 32 not in redis.published
    assert phases["commit"][0] == 3
    assert phases["notify"][0] == 2
    count, seconds = phases["produce"]
    assert count == 1
    assert 0.037 <= seconds < 0.08


async def test_a_record_from_the_future_does_not_shorten_the_sum() -> None:
    """The broker's clock may be ahead of this machine's."""
    clock = HandClock()
    phases = BatchPhases(clock)
    before = observed()["queue"]
    phases.committed([Record(0, clock.now() + 60_000, None, None)])
    assert observed()["queue"] == (before[0] + 1, before[1])
