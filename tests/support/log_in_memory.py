"""A worker on real PostgreSQL whose log is a list: the records need no broker."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress

import msgspec

from microfin.ledger.records import Answer
from microfin.ledger.wire import Command, encode
from microfin.postgres.connections import Pool
from microfin.process.clock import SystemClock
from microfin.redis.account_cache import CachedAccount
from microfin.redis.replies import Reply
from microfin_worker.limits import Limits
from microfin_worker.ports import Claim, Ports, Record
from microfin_worker.postgres_store import PostgresStore
from microfin_worker.worker import Worker


class ListLog:
    """The only partition of a log. All records that were appended can be fetched together."""

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

    async def reread(self, offset: int) -> Record | None:
        return self.records[offset]

    def end(self) -> int:
        return len(self.records)

    async def append(self, partition: int, command: Command) -> int:
        assert partition == 0
        self.write([(command.account.encode(), encode(command))], 2_000)
        return 2_000

    async def note(self, next_offset: int) -> None:
        """Nobody reads it."""


class CountedStore(PostgresStore):
    """The real store; counts the claims."""

    claims = 0

    async def claim(self, held: int | None = None) -> Claim:
        self.claims += 1
        return await super().claim(held)


class JsonRedis:
    """Accepts answers and accounts as Redis would: as JSON."""

    async def send(self, answers: Sequence[Answer]) -> None:
        for answer in answers:
            msgspec.json.encode(Reply(answer.reply, answer.operation))

    async def put(self, accounts: Iterable[CachedAccount]) -> None:
        for account in accounts:
            msgspec.json.encode(account)


class Bench(msgspec.Struct):
    """A running worker, with its log and its store."""

    log: ListLog
    store: CountedStore
    pool: Pool
    worker: Worker

    async def decided(self) -> None:
        """Wait until the whole log is decided."""
        async with asyncio.timeout(30):
            while self.worker.status.next_offset < len(self.log.records):
                assert self.worker.status.state != "stopped", self.worker.status.reason
                await asyncio.sleep(0.002)


@asynccontextmanager
async def working(pool: Pool) -> AsyncIterator[Bench]:
    """Provide a worker of partition 0 of 1 that works on `pool`."""
    log, store, redis = ListLog(), CountedStore(pool, 0, 1), JsonRedis()
    worker = Worker(0, 1, Ports(log, store, redis, redis, SystemClock()), Limits())
    running = asyncio.create_task(worker.run())
    try:
        yield Bench(log, store, pool, worker)
    finally:
        worker.stop()
        await running
