"""A ledger on real PostgreSQL whose log is in memory: the real decision core and the real store.

For tests that need the rows of a valid history, on any number of shards.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from itertools import count
from typing import Self
from urllib.parse import urlsplit
from uuid import uuid4

from microfin.ledger.account_number import derive_account_number
from microfin.ledger.decision import account_numbers, decide, leg_keys
from microfin.ledger.hold_rules import hold_ids
from microfin.ledger.operation import AccountState, Kind, operation_id
from microfin.ledger.records import Decisions, Received
from microfin.ledger.routing import Routing, partition_of, shard_of_account
from microfin.ledger.wire import Command, expiry_of
from microfin.postgres.connections import Pool, connect_pool
from microfin.process.settings import CommonSettings
from microfin_local.platform import Platform
from microfin_tools.growth.postgres_routing import PostgresRouting
from microfin_tools.migrations.run import migrate, migrate_archives
from microfin_worker.ports import BatchWrite, OutboxPlace, Place, Quarantined
from microfin_worker.postgres_store import PostgresStore


async def make_ledger_databases(
    platform: Platform, name: str, shards: int, partitions: int
) -> list[str]:
    """Make one migrated database a shard, all on the platform's first server."""
    databases = [f"{name}_{shard}" for shard in range(shards)]
    for database in databases:
        await platform.create_database(database)
    urls = [platform.postgres_direct(0, database=database) for database in databases]
    await asyncio.to_thread(migrate, urls, partitions)
    return databases


def archives_of(urls: Sequence[str]) -> list[str]:
    """Return the URLs of the archives that `make_archives` makes for the shards at `urls`."""
    parts = [urlsplit(url) for url in urls]
    return [it._replace(path=f"{it.path}_archive").geturl() for it in parts]


async def make_archives(platform: Platform, urls: Sequence[str]) -> list[str]:
    """Make an archive for each of the shards at `urls`, the owner's; return their URLs."""
    archives = archives_of(urls)
    for url in archives:
        await platform.create_database(urlsplit(url).path[1:])
    await asyncio.to_thread(migrate_archives, urls, archives)
    return archives


class PostgresLedger:
    """All partitions of some shards, each with a log in memory; commands travel between them."""

    def __init__(self, urls: Sequence[str], partitions: int) -> None:
        self.urls = list(urls)
        self.routing = Routing(1, partitions)
        self.logs: list[deque[Received]] = [deque() for _ in range(partitions)]
        self.offsets = [0] * partitions
        self.time = 1_700_000_000_000
        self.keys = count()
        self.pools: list[Pool] = []
        self.stores: list[PostgresStore] = []
        self.sent: list[list[OutboxPlace]] = [[] for _ in range(partitions)]

    async def __aenter__(self) -> Self:
        """Connect and claim all partitions; goes on where the databases are."""
        settings = CommonSettings()
        self.pools = [await connect_pool(url, settings) for url in self.urls]
        for partition in range(self.routing.partition_count):
            self.offsets[partition] = await self._claim(partition)
        return self

    async def __aexit__(self, *_error: object) -> None:
        """Close all connections."""
        for pool in self.pools:
            await pool.close()

    async def _claim(self, partition: int) -> int:
        shards = len(self.pools)
        store = PostgresStore(self.pools[partition % shards], partition, shards)
        claim = await store.claim()
        self.stores.append(store)
        return claim.row.next_offset

    async def grow(self, partitions: int) -> None:
        """Spread the accounts over `partitions`, shard after shard; what waits is forwarded."""
        for partition in range(self.routing.partition_count, partitions):
            self.logs.append(deque())
            self.sent.append([])
            self.offsets.append(await self._claim(partition))
        grown = Routing(self.routing.generation + 1, partitions)
        for number, pool in enumerate(self.pools):
            routing = PostgresRouting(pool, number)
            token = uuid4()
            await routing.prepare(self.routing, grown, token)
            await routing.activate(self.routing, grown, token, {})
        self.routing = grown

    def append(self, command: Command) -> None:
        """Append a command to the log of its partition."""
        self.append_to(partition_of(command.account, self.routing.partition_count), command)

    def append_to(self, partition: int, command: Command | None) -> None:
        """Append a command, or None for a record that nobody can read, to a partition's log."""
        self.time += 1
        offset = self.offsets[partition]
        fault = "" if command else "not a command"
        self.logs[partition].append(Received(offset, self.time, command, fault))
        self.offsets[partition] = offset + 1

    async def settle(self, partition: int, most: int = 1_000) -> Decisions:
        """Let one partition settle a batch, then deliver what it sends on."""
        log = self.logs[partition]
        batch = [log.popleft() for _ in range(min(most, len(log)))]
        sent, self.sent[partition] = self.sent[partition], []
        async with self.stores[partition].transaction() as transaction:
            row = await transaction.lock()
            known = await transaction.known_outcomes(leg_keys(batch))
            holds = await transaction.holds(hold_ids(batch))
            numbers = account_numbers(batch, partition, row.routing, holds)
            accounts = await transaction.accounts(numbers)
            decisions = decide(partition, row.routing, accounts, known, batch, holds)
            await transaction.write(
                Place(partition, row.epoch, row.next_offset, row.routing),
                BatchWrite(
                    decisions=decisions,
                    versions={number: account.version for number, account in accounts.items()},
                    quarantined=[
                        Quarantined(record.offset, record.time, None, b"garbage", record.fault)
                        for record in decisions.quarantined
                    ],
                    sent=sent,
                    next_offset=batch[-1].offset + 1 if batch else row.next_offset,
                    fingerprint=b"fingerprint",
                ),
            )
        for outgoing in decisions.outbox:
            self.append(outgoing.command)
            self.sent[partition].append((outgoing.offset, outgoing.step))
        return decisions

    async def drain(self) -> None:
        """Settle until nothing is under way, and the outboxes are empty."""
        while any(self.logs) or any(self.sent):
            for partition in range(len(self.logs)):
                if self.logs[partition] or self.sent[partition]:
                    await self.settle(partition)

    async def turn(self, shard: int = 0) -> None:
        """Let the newest volume of a shard be full at once, and turn to the next."""
        pool = self.pools[shard]
        await pool.execute("UPDATE routing SET outcomes_per_volume = 1")
        assert await pool.fetchval("SELECT turn_volume()") is not None
        await pool.execute("UPDATE routing SET outcomes_per_volume = 4000000")

    # Requests ---------------------------------------------------------------------------------

    def open(self, user: str, currency: str, partition: int) -> str:
        """Ask for a new account on a certain partition and return its number."""
        while True:
            operation = operation_id(user, str(next(self.keys)), "open", "")
            number = derive_account_number(operation, 0)
            if partition_of(number, self.routing.partition_count) == partition:
                break
        self.append(
            Command(
                kind="open",
                leg="request",
                operation=operation,
                account=number,
                user=user,
                currency=currency,
            )
        )
        return number

    def request(
        self,
        kind: Kind,
        account: str,
        *,
        user: str = "",
        amount: str = "",
        to: str = "",
        state: AccountState | None = None,
        reference: str = "",
        metadata: dict[str, str] | None = None,
        hold: str = "",
        lifetime: int = 0,
        last: bool = False,
    ) -> str:
        """Ask for an operation and return its id."""
        operation = operation_id(user, str(next(self.keys)), kind, account)
        self.append(
            Command(
                kind=kind,
                leg="request",
                operation=operation,
                account=account,
                user=user,
                counterparty=to,
                amount=amount,
                state=state,
                reference=reference,
                metadata=metadata,
                hold=hold,
                lifetime=lifetime,
                last=last,
            )
        )
        return operation

    def expire(self, account: str, hold: str) -> None:
        """Append the end of a hold, as a worker does when its time is over."""
        command = Command(
            kind="expire", leg="request", operation=expiry_of(hold), account=account, hold=hold
        )
        self.append(command)

    def shard(self, account: str) -> int:
        """Return the shard that an account is on."""
        return shard_of_account(account, len(self.urls))
