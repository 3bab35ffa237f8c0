"""Ports in memory for the services that a benchmark does not measure: log, replies and cache."""

import asyncio
from collections.abc import Iterable, Sequence

from microfin.ledger import wire
from microfin.ledger.records import Answer
from microfin.ledger.wire import Command
from microfin.redis.account_cache import CachedAccount
from microfin_worker.ports import Record


class MemoryTopic:
    """Partitions of records: one worker appends a credit, and another one fetches it."""

    def __init__(self, partitions: int) -> None:
        self.records: list[list[Record]] = [[] for _ in range(partitions)]
        self.arrived = [asyncio.Event() for _ in range(partitions)]

    def append(self, partition: int, command: Command) -> int:
        """Append one command and return its time."""
        records = self.records[partition]
        record = Record(len(records), 1_000, command.account.encode(), wire.encode(command))
        records.append(record)
        self.arrived[partition].set()
        return record.time


class MemoryLog:
    """One partition of a `MemoryTopic`, as a worker's log."""

    def __init__(self, topic: MemoryTopic, partition: int) -> None:
        self._topic = topic
        self._partition = partition
        self._next = 0

    async def bounds(self) -> tuple[int, int]:
        """Return the first offset and the one after the last."""
        return 0, self.end()

    async def record_at(self, offset: int) -> Record | None:
        """Return the record at `offset`."""
        return self._topic.records[self._partition][offset]

    async def seek(self, offset: int) -> None:
        """Let the next `fetch` begin at `offset`."""
        self._next = offset

    async def fetch(self, limit: int) -> Sequence[Record]:
        """Return the next records, at most `limit`."""
        records = self._topic.records[self._partition]
        if self._next == len(records):
            arrived = self._topic.arrived[self._partition]
            arrived.clear()
            try:
                await asyncio.wait_for(arrived.wait(), 0.5)
            except TimeoutError:
                return []
        fetched = records[self._next : self._next + limit]
        self._next += len(fetched)
        return fetched

    async def reread(self, offset: int) -> Record | None:
        """Return the record at `offset`."""
        return await self.record_at(offset)

    def end(self) -> int:
        """Return the offset after the last record."""
        return len(self._topic.records[self._partition])

    async def append(self, partition: int, command: Command) -> int:
        """Append to any partition."""
        return self._topic.append(partition, command)

    async def note(self, next_offset: int) -> None:
        """Do nothing: no tool reads the lag here."""


class NoReplies:
    """Sends no answers."""

    async def send(self, answers: Sequence[Answer]) -> None:
        """Drop the answers."""


class NoCache:
    """Caches no accounts."""

    async def put(self, accounts: Iterable[CachedAccount]) -> None:
        """Drop the accounts."""
