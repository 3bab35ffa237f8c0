"""The worker's store: the claim and the transaction of one partition, on its shard's PostgreSQL.

What holds here holds in the database, not by good manners: every change of a partition's accounts
happens in a transaction that locked the partition's row and found its own epoch there.
"""

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import asyncpg
import msgspec

from microfin.ledger import wire
from microfin.ledger.decision import Account, LegKey, OutboxRow
from microfin.ledger.operation import Outcome
from microfin.ledger.routing import Routing, shard_of_partition
from microfin.postgres import rows as ledger_rows
from microfin.postgres.connections import Connection, Pool
from microfin.postgres.rows import MILLISECONDS, OUTCOME_COLUMNS
from microfin.postgres.shards import SHARD, ShardPlace
from microfin_worker.batch_statement import BatchWrite, OutboxPlace, Place, batch_statement


class PartitionRow(msgspec.Struct, frozen=True):
    """A partition's row: who claimed it last (`epoch`), how far it is, and its routing."""

    partition: int
    epoch: int
    next_offset: int
    fingerprint: bytes | None
    routing: Routing


class Claim(msgspec.Struct, frozen=True):
    """A claimed partition: its row, and the commands that it still has to send on."""

    row: PartitionRow
    outbox: list[OutboxRow]


class Fenced(Exception):
    """Another worker has claimed the partition since."""


class PlaceChanged(Exception):
    """The partition's row is not at the place that the batch was decided from; nothing was written.
    What it is at tells `PostgresTransaction.lock`."""


class RepeatsFound(Exception):
    """A leg of the batch was decided before, or a number that it opens is taken, and neither was
    looked up; nothing was written."""


class StaleAccounts(Exception):
    """An account was not as this worker remembered it; nothing was written."""


_ROW = """
SELECT partition, epoch, next_offset, fingerprint, generation, partition_count
FROM partitions WHERE partition = $1
"""

_OUTBOX = """
SELECT log_offset, step, command FROM outbox WHERE partition = $1 ORDER BY log_offset, step
"""

_KNOWN = f"""
SELECT {OUTCOME_COLUMNS} FROM outcomes WHERE operation_id = ANY($1::uuid[])
"""  # noqa: S608 - the columns are ours

_ACCOUNTS = f"""
SELECT number, owner, currency, balance, state, seq, version,
    {MILLISECONDS.format(column="entry_time")} AS entry_time
FROM accounts WHERE number = ANY($1::text[])
"""  # noqa: S608 - the columns are ours

_SENT = """
DELETE FROM outbox USING unnest($2::bigint[], $3::integer[]) AS sent (log_offset, step)
WHERE partition = $1 AND outbox.log_offset = sent.log_offset AND outbox.step = sent.step
"""


class PostgresTransaction:
    """The worker's open transaction on one partition. Its methods are called in this order."""

    def __init__(self, connection: Connection, partition: int) -> None:
        self._connection = connection
        self._partition = partition

    async def lock(self) -> PartitionRow:
        """Lock the partition's row until the transaction ends, and return it."""
        row = await self._connection.fetchrow(_ROW + "FOR UPDATE", self._partition)
        return _partition_row(row)

    async def known_outcomes(self, keys: Sequence[LegKey]) -> dict[LegKey, Outcome]:
        """Return the outcomes that exist of `keys`, perhaps with other legs of their operations."""
        if not keys:
            return {}
        rows = await self._connection.fetch(_KNOWN, [operation for operation, _ in keys])
        outcomes = [ledger_rows.outcome_of(row) for row in rows]
        return {(outcome.operation, outcome.leg): outcome for outcome in outcomes}

    async def accounts(self, numbers: Sequence[str]) -> dict[str, Account]:
        """Return the accounts that exist of `numbers`."""
        if not numbers:
            return {}
        rows = await self._connection.fetch(_ACCOUNTS, numbers)
        return {row["number"]: ledger_rows.account_of(row) for row in rows}

    async def write(self, place: Place, write: BatchWrite) -> None:
        """Write the batch; see `PostgresStore.commit` for what it raises."""
        await _write(self._connection, place, write)

    async def delete_sent(self, sent: Sequence[OutboxPlace]) -> None:
        """Delete outbox rows that the broker has acknowledged."""
        if sent:
            await self._connection.execute(
                _SENT,
                self._partition,
                [offset for offset, _ in sent],
                [step for _, step in sent],
            )

    async def touch(self) -> None:
        """Show other claimants that this partition has an owner."""
        await self._connection.execute(
            "UPDATE partitions SET touched_at = clock_timestamp() WHERE partition = $1",
            self._partition,
        )


class PostgresStore:
    """The store of one partition on its shard, one of `shards`."""

    def __init__(self, pool: Pool, partition: int, shards: int) -> None:
        self._pool = pool
        self._place = ShardPlace(shard_of_partition(partition, shards), shards)
        self.partition = partition

    async def claim(self, held: int | None = None) -> Claim:
        """Claim the partition: raise its epoch, commit that, and only then read what is there.

        The update waits for an orphaned transaction of an earlier claimant to end, and fences it.
        `held` is the epoch that this worker held before, if it did. Raises `Fenced` where another
        claimant came after that, or between; `WrongShard` or `NotMigrated`, before anything is
        written, where the database is not the partition's shard.
        """
        epoch = await self._raise_epoch(held)
        async with self._pool.acquire() as connection, connection.transaction():
            row = _partition_row(await connection.fetchrow(_ROW + "FOR UPDATE", self.partition))
            if row.epoch != epoch:
                raise Fenced(f"epoch {row.epoch} came after our {epoch}")
            rows = await connection.fetch(_OUTBOX, self.partition)
        outbox = [
            OutboxRow(
                stored["log_offset"],
                stored["step"],
                msgspec.json.decode(stored["command"], type=wire.Command),
            )
            for stored in rows
        ]
        return Claim(row, outbox)

    async def _raise_epoch(self, held: int | None) -> int:
        async with self._pool.acquire() as connection, connection.transaction():
            # Asked here and not only of new connections: a pooler can lead elsewhere since.
            self._place.check(await connection.fetchrow(SHARD))
            epoch: int | None = await connection.fetchval(
                "UPDATE partitions SET epoch = epoch + 1, touched_at = clock_timestamp()"
                " WHERE partition = $1 AND epoch = coalesce($2, epoch) RETURNING epoch",
                self.partition,
                held,
            )
            if epoch is None and held is not None:
                raise Fenced(f"another epoch came after our {held}")
            if epoch is None:
                # The shared lock makes a growth's activation wait, so that no row misses it.
                epoch = await connection.fetchval(
                    "INSERT INTO partitions (partition, epoch, generation, partition_count)"
                    " SELECT $1, 1, generation, partition_count FROM"
                    " (SELECT generation, partition_count FROM routing FOR SHARE) AS current"
                    " RETURNING epoch",
                    self.partition,
                )
        if epoch is None:
            raise self._place.not_migrated()
        return epoch

    async def commit(self, place: Place, write: BatchWrite) -> None:
        """Write and commit, in one statement, a batch that was decided from `place`.

        Nothing is written where it raises `PlaceChanged`, `StaleAccounts` or `RepeatsFound`; after
        any other error it is unknown whether the commit took place.
        """
        async with self._pool.acquire() as connection:
            await _write(connection, place, write)

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[PostgresTransaction]:
        """Open the worker's transaction; it commits when the block ends without an error.

        Any error out of here, but for one raised inside the block before the commit, leaves it
        unknown whether the commit took place.
        """
        async with self._pool.acquire() as connection, connection.transaction():
            yield PostgresTransaction(connection, self.partition)

    async def idle_seconds(self) -> float:
        """Return for how long no claimant has touched the partition, by the database's clock."""
        async with self._pool.acquire() as connection, connection.transaction():
            seconds: float = await connection.fetchval(
                "SELECT extract(epoch FROM clock_timestamp() - touched_at)::float8"
                " FROM partitions WHERE partition = $1",
                self.partition,
            )
        return seconds


def _partition_row(row: Any) -> PartitionRow:
    if row is None:
        raise LookupError("The partition's row is gone.")
    return PartitionRow(
        partition=row["partition"],
        epoch=row["epoch"],
        next_offset=row["next_offset"],
        fingerprint=row["fingerprint"],
        routing=Routing(row["generation"], row["partition_count"]),
    )


async def _write(connection: Connection, place: Place, write: BatchWrite) -> None:
    try:
        await connection.execute(batch_statement(place, write))
    except asyncpg.UniqueViolationError as error:
        if error.constraint_name in ("outcomes_pkey", "accounts_pkey"):
            raise RepeatsFound(str(error)) from error
        raise
    except asyncpg.PostgresError as error:
        match error.sqlstate:
            case "MF001":
                raise PlaceChanged(str(error)) from error
            case "MF002":
                raise StaleAccounts(str(error)) from error
        raise
