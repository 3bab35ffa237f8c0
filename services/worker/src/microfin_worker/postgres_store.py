"""The worker's store: the claim and the transaction of one partition, in its shard's PostgreSQL.

The database itself enforces the rules: every change of a partition's accounts happens in a
transaction that locked the partition's row and found its own epoch there. If
the worker must distinguish an error of PostgreSQL, this module raises an error of the port
(`microfin_worker.ports.StoreError`) in its place.
"""

import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import asyncpg
import msgspec

from microfin.ledger import wire
from microfin.ledger.operation import Outcome
from microfin.ledger.records import Account, Hold, LegKey, OutboxRow
from microfin.ledger.routing import Routing, shard_of_partition
from microfin.postgres import rows as ledger_rows
from microfin.postgres.connections import (
    Connection,
    Pool,
    answering_connection,
    check_shard_within,
    is_connection_loss,
    is_data_error,
)
from microfin.postgres.rows import HOLD_COLUMNS, MILLISECONDS, OUTCOME_COLUMNS
from microfin.postgres.shards import NotMigrated, ShardPlace, WrongShard
from microfin.process.silence import Silence
from microfin_worker.batch_statement import batch_statement
from microfin_worker.ports import (
    BatchWrite,
    Claim,
    DataRefused,
    DueHold,
    DueHolds,
    Fenced,
    PartitionRow,
    Place,
    PlaceChanged,
    RepeatsFound,
    StaleAccounts,
    StoreNotReady,
    StoreUnavailable,
    WrongStore,
)
from microfin_worker.tenure import TOUCH_AFTER
from microfin_worker.volumes import OutcomeCount

_ROW = """
SELECT partition, epoch, next_offset, fingerprint, generation, partition_count
FROM partitions WHERE partition = $1
"""

_OUTBOX = """
SELECT log_offset, step, command FROM outbox WHERE partition = $1 ORDER BY log_offset, step
"""

_KNOWN = f"""
SELECT {OUTCOME_COLUMNS} FROM legs_of($1::uuid[])
"""  # noqa: S608 - the columns are ours

_ACCOUNTS = f"""
SELECT number, owner, currency, balance, held, state, seq, version,
    {MILLISECONDS.format(column="entry_time")} AS entry_time
FROM accounts WHERE number = ANY($1::text[])
"""  # noqa: S608 - the columns are ours


_HOLDS = f"""
SELECT {HOLD_COLUMNS} FROM holds WHERE operation_id = ANY($1::uuid[])
"""  # noqa: S608 - the columns are ours


# A second later than the end, since the broker's clock counts.
_DUE = f"""
SELECT partition_count, due.* FROM routing LEFT JOIN LATERAL (
    SELECT operation_id, account, {MILLISECONDS.format(column="ends_at")} AS ends FROM holds
    WHERE ends_at < clock_timestamp() - interval '1 second'
        AND (ends_at, operation_id)
            > ('epoch'::timestamptz + $1::bigint * interval '1 millisecond', $2::uuid)
    ORDER BY ends_at, operation_id LIMIT $3
) AS due ON true ORDER BY due.ends, due.operation_id
"""  # noqa: S608 - the columns are ours

_BEFORE_ALL = DueHold(0, "0" * 32, "")


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
        """Return the outcomes of `keys` that exist, perhaps with other legs of their operations."""
        if not keys:
            return {}
        rows = await self._connection.fetch(_KNOWN, [operation for operation, _ in keys])
        outcomes = [ledger_rows.outcome_of(row) for row in rows]
        return {(outcome.operation, outcome.leg): outcome for outcome in outcomes}

    async def holds(self, ids: Sequence[str]) -> dict[str, Hold]:
        """Return those of the holds `ids` that are open."""
        if not ids:
            return {}
        rows = await self._connection.fetch(_HOLDS, ids)
        holds = [ledger_rows.hold_of(row) for row in rows]
        return {hold.operation: hold for hold in holds}

    async def accounts(self, numbers: Sequence[str]) -> dict[str, Account]:
        """Return the accounts of `numbers` that exist."""
        if not numbers:
            return {}
        rows = await self._connection.fetch(_ACCOUNTS, numbers)
        return {row["number"]: ledger_rows.account_of(row) for row in rows}

    async def write(self, place: Place, write: BatchWrite) -> None:
        """Write the batch; see `PostgresStore.commit` for what it raises."""
        await _write(self._connection, place, write)


class PostgresStore:
    """The rows of one partition in its shard, one of `shards`."""

    def __init__(self, pool: Pool, partition: int, shards: int) -> None:
        self._pool = pool
        self._shard = ShardPlace(shard_of_partition(partition, shards), shards)
        self.partition = partition
        self.written = OutcomeCount()
        self.silence = Silence("PostgreSQL", TOUCH_AFTER, self._shard.number)

    async def claim(self, held: int | None = None) -> Claim:
        """Claim the partition: raise its epoch, commit that, and only then read its rows.

        The update waits until an orphaned transaction of an earlier claimant ends, and fences it.
        `held` is the epoch that this worker held before, if it did. Raises `Fenced` if another
        claimant came after that or in between; `WrongStore` or `StoreNotReady`, before anything is
        written, if the database is not the partition's shard.
        """
        with _port_errors():
            epoch = await self._raise_epoch(held)
        async with self._call(transaction=True) as connection:
            row = _partition_row(await connection.fetchrow(_ROW + "FOR UPDATE", self.partition))
            if row.epoch != epoch:
                raise Fenced(f"epoch {row.epoch} came after our {epoch}")
            rows = await connection.fetch(_OUTBOX, self.partition)
        return Claim(row, [_outbox_row(stored) for stored in rows])

    async def _raise_epoch(self, held: int | None) -> int:
        async with self._call(transaction=True) as connection:
            # Checked here as well as on new connections: a pooler can lead elsewhere by now.
            await check_shard_within(connection, self._shard)
            epoch: int | None = await connection.fetchval(
                "UPDATE partitions SET epoch = epoch + 1, touched_at = clock_timestamp(),"
                " wire_epoch = epoch + 1, wire_version = $3"
                " WHERE partition = $1 AND epoch = coalesce($2, epoch) RETURNING epoch",
                self.partition,
                held,
                wire.VERSION,
            )
            if epoch is None and held is not None:
                raise Fenced(f"another epoch came after our {held}")
            if epoch is None:
                # The shared lock makes a growth's activation wait, so that no row misses it.
                epoch = await connection.fetchval(
                    "INSERT INTO partitions (partition, epoch, generation, partition_count,"
                    " wire_epoch, wire_version)"
                    " SELECT $1, 1, generation, partition_count, 1, $2 FROM"
                    " (SELECT generation, partition_count FROM routing FOR SHARE) AS current"
                    " RETURNING epoch",
                    self.partition,
                    wire.VERSION,
                )
        if epoch is None:
            raise self._shard.not_migrated()
        return epoch

    async def commit(self, place: Place, write: BatchWrite) -> None:
        """Write and commit, in one statement, a batch that was decided from `place`.

        Nothing is written if it raises `PlaceChanged`, `StaleAccounts`, `RepeatsFound` or
        `DataRefused`; after any other error it is unknown whether the commit succeeded.
        """
        async with self._call(transaction=False) as connection:
            await _write(connection, place, write)
        self.written.add(len(write.decisions.outcomes))

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[PostgresTransaction]:
        """Open the worker's transaction; it commits when the block ends without an error.

        An error that the block itself raised means that nothing was committed. After any other
        error it is unknown whether the commit succeeded.
        """
        async with self._call(transaction=True) as connection:
            yield PostgresTransaction(connection, self.partition)

    async def idle_seconds(self) -> float:
        """Return for how long no claimant has touched the partition, by the database's clock."""
        async with self._call(transaction=True) as connection:
            seconds: float = await connection.fetchval(
                "SELECT extract(epoch FROM clock_timestamp() - touched_at)::float8"
                " FROM partitions WHERE partition = $1",
                self.partition,
            )
        return seconds

    async def due_holds(self, after: DueHold | None, limit: int) -> DueHolds:
        """Return at most `limit` holds of the shard whose time is over, those after `after`."""
        place = after or _BEFORE_ALL
        async with self._call(transaction=False) as connection:
            rows = await connection.fetch_at_once(_DUE, place.ends, place.operation, limit)
        if not rows:
            raise self._shard.not_migrated()
        holds = [
            DueHold(row["ends"], row["operation_id"].hex, row["account"])
            for row in rows
            if row["operation_id"] is not None
        ]
        return DueHolds(holds, rows[0]["partition_count"])

    @contextlib.asynccontextmanager
    async def _call(self, *, transaction: bool) -> AsyncIterator[Connection]:
        """Give a connection, note whether the database answers, and raise errors of the port."""
        self.silence.ask()
        try:
            with _port_errors():
                async with answering_connection(self._pool, transaction=transaction) as connection:
                    yield connection
        except StoreUnavailable:
            await self._pool.expire_connections()  # the others may be dead, too
            raise
        except Exception:
            self.silence.answered()
            raise
        self.silence.answered()


@contextlib.contextmanager
def _port_errors() -> Iterator[None]:
    """Raise an error of the port in place of one of the database that the worker distinguishes."""
    try:
        yield
    except WrongShard as error:
        raise WrongStore(str(error)) from error
    except NotMigrated as error:
        raise StoreNotReady(str(error)) from error
    except Exception as error:
        if is_data_error(error):
            raise DataRefused(str(error)) from error
        if is_connection_loss(error):
            raise StoreUnavailable(str(error)) from error
        raise


def _outbox_row(stored: Any) -> OutboxRow:
    return OutboxRow(
        stored["log_offset"],
        stored["step"],
        msgspec.json.decode(stored["command"], type=wire.Command),
    )


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
