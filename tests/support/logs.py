"""Logs of one partition in memory, as the worker's port for its log."""

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress

from microfin.ledger import wire
from microfin.ledger.wire import Command
from microfin.process.clock import SystemClock
from microfin_worker.ports import Record
from support.clocks import HandClock


class ListLog:
    """Partition 0, the only one. A record that is appended can be fetched at once."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self._next = 0
        self._more = asyncio.Event()

    def write(self, records: Iterable[tuple[bytes | None, bytes | None]], time: int) -> None:
        for key, value in records:
            self.records.append(Record(len(self.records), time, key, value))
        self._more.set()

    async def bounds(self) -> tuple[int, int]:
        return 0, len(self.records)

    async def record_at(self, offset: int) -> Record | None:
        return self.records[offset]

    async def reread(self, offset: int) -> Record | None:
        return self.records[offset]

    async def seek(self, offset: int) -> None:
        self._next = offset

    async def fetch(self, limit: int) -> Sequence[Record]:
        if self._next == len(self.records):
            self._more.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._more.wait(), 0.5)
        found = self.records[self._next : self._next + limit]
        self._next += len(found)
        return found

    def end(self) -> int:
        return len(self.records)

    async def append(self, partition: int, command: Command) -> int:
        assert partition == 0
        self.write([(command.account.encode(), wire.encode(command))], 2_000)
        return 2_000

    async def note(self, next_offset: int) -> None:
        """Nobody reads the note."""


class FailingLog(ListLog):
    """Fails the next `failing` appends; lists the others, of any partition."""

    def __init__(self) -> None:
        super().__init__()
        self.appended: list[tuple[int, Command]] = []
        self.failing = 0
        self.held = asyncio.Event()
        self.held.set()

    async def append(self, partition: int, command: Command) -> int:
        await self.held.wait()
        if self.failing:
            self.failing -= 1
            raise ConnectionError("no acknowledgement")
        self.appended.append((partition, command))
        return SystemClock().now()


class SlowLog(ListLog):
    """Records that are 100 ms old. The first append fails after 30 ms, the others need 7 ms."""

    def __init__(self, clock: HandClock, commands: Sequence[Command]) -> None:
        super().__init__()
        self.clock = clock
        time = clock.now() - 100
        self.records = [
            Record(offset, time + offset, command.account.encode(), wire.encode(command))
            for offset, command in enumerate(commands)
        ]
        self.has_refused = False

    async def fetch(self, limit: int) -> Sequence[Record]:
        fetched = self.records[self._next : self._next + limit]
        await (self.clock.spend(3) if fetched else self.clock.sleep(0.5))
        self._next += len(fetched)
        return fetched

    async def append(self, _partition: int, _command: Command) -> int:
        if not self.has_refused:
            self.has_refused = True
            await self.clock.spend(30)
            raise ConnectionError("no acknowledgement")
        await self.clock.spend(7)
        appended = self.clock.now()
        await self.clock.spend(50)  # The way of the acknowledgement does not belong to the phase.
        return appended


class ScriptedLog:
    """Has the offsets from `start` to 5, and `record` at offset 4, if any; lists the questions."""

    def __init__(self, record: Record | None, start: int = 0) -> None:
        self.record = record
        self.start = start
        self.asked: list[str] = []

    async def bounds(self) -> tuple[int, int]:
        self.asked.append("bounds")
        return self.start, 5

    async def record_at(self, offset: int) -> Record | None:
        self.asked.append("record_at")
        assert offset == 4
        return self.record

    async def reread(self, offset: int) -> Record | None:
        self.asked.append("reread")
        assert offset == 4
        return self.record
