"""A worker on real PostgreSQL whose log is a list: the records need no broker."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager

import msgspec

from microfin.ledger.records import Answer
from microfin.postgres.connections import Pool
from microfin.process.clock import SystemClock
from microfin.redis.account_cache import CachedAccount
from microfin.redis.replies import Reply
from microfin_worker.limits import Limits
from microfin_worker.ports import Claim, Ports
from microfin_worker.postgres_store import PostgresStore
from microfin_worker.worker import Worker
from support.logs import ListLog


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
