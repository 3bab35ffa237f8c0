"""The worker's store: the claim and the transaction of one partition, on its shard's PostgreSQL.

What holds here holds in the database, not by good manners: every change of a partition's accounts
happens in a transaction that locked the partition's row and found its own epoch there.
"""

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import asyncpg
import msgspec

from microfin import ledger_rows, wire
from microfin.database import Connection, Pool
from microfin.decision import Account, Decisions, LegKey, OutboxRow
from microfin.ledger_rows import MILLISECONDS, OUTCOME_COLUMNS
from microfin.operation import Outcome
from microfin.routing import Routing

OutboxPlace = tuple[int, int]
"""The `(offset, step)` of an outbox row, unique in its partition."""


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


class Quarantined(msgspec.Struct, frozen=True):
    """A record set aside, as it came. `time` is milliseconds since the Unix epoch."""

    offset: int
    time: int
    key: bytes | None
    value: bytes | None
    reason: str


class Fenced(Exception):
    """Another worker has claimed the partition since."""


class RepeatsFound(Exception):
    """A leg of the batch was decided before, and its outcome was not looked up; nothing was
    written."""


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

_EPOCH = "'epoch'::timestamptz + {column} * interval '1 millisecond'"

_WRITE = f"""
WITH new_outcomes AS (
    INSERT INTO outcomes (
        operation_id, leg, kind, status, account, counterparty, user_id, amount, currency, seq,
        balance, counterparty_seq, reason, at_account, needed, available, body_hash, partition,
        log_offset, at)
    SELECT operation_id, leg, kind, status, account, counterparty, user_id, amount, currency, seq,
        balance, counterparty_seq, reason, at_account, needed, available, body_hash, $1,
        log_offset, {_EPOCH.format(column="time")}
    FROM unnest($4::uuid[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
        $10::uuid[], $11::bigint[], $12::text[], $13::bigint[], $14::bigint[], $15::bigint[],
        $16::text[], $17::text[], $18::bigint[], $19::bigint[], $20::bytea[], $21::bigint[],
        $22::bigint[])
    AS row (operation_id, leg, kind, status, account, counterparty, user_id, amount, currency, seq,
        balance, counterparty_seq, reason, at_account, needed, available, body_hash, log_offset,
        time)
), new_entries AS (
    INSERT INTO entries (
        account, seq, amount, balance_after, operation_id, leg, kind, contra, counterparty,
        partition, at)
    SELECT account, seq, amount, balance_after, operation_id, leg, kind, contra, counterparty, $1,
        {_EPOCH.format(column="time")}
    FROM unnest($23::text[], $24::bigint[], $25::bigint[], $26::bigint[], $27::uuid[],
        $28::text[], $29::text[], $30::text[], $31::text[], $32::bigint[])
    AS row (account, seq, amount, balance_after, operation_id, leg, kind, contra, counterparty,
        time)
), changed_accounts AS (
    UPDATE accounts SET balance = row.balance, state = row.state, seq = row.seq,
        version = row.version, entry_time = {_EPOCH.format(column="row.entry_time")}
    FROM unnest($33::text[], $34::bigint[], $35::text[], $36::bigint[], $37::bigint[],
        $38::bigint[], $39::bigint[])
    AS row (number, balance, state, seq, version, entry_time, known_version)
    WHERE accounts.number = row.number AND accounts.version = row.known_version
    RETURNING 1
), changed_contra AS (
    INSERT INTO contra_balances (partition, contra, currency, balance)
    SELECT $1, contra, currency, change FROM unnest($40::text[], $41::text[], $42::bigint[])
    AS row (contra, currency, change)
    ON CONFLICT (partition, contra, currency)
    DO UPDATE SET balance = contra_balances.balance + excluded.balance
), new_outbox AS (
    INSERT INTO outbox (partition, log_offset, step, operation_id, command)
    SELECT $1, * FROM unnest($43::bigint[], $44::integer[], $45::uuid[], $46::bytea[])
), deleted_outbox AS (
    DELETE FROM outbox USING unnest($47::bigint[], $48::integer[]) AS sent (log_offset, step)
    WHERE partition = $1 AND outbox.log_offset = sent.log_offset AND outbox.step = sent.step
), changed_partition AS (
    UPDATE partitions SET next_offset = $2, fingerprint = $3, touched_at = clock_timestamp()
    WHERE partition = $1
)
SELECT count(*) FROM changed_accounts
"""  # noqa: S608 - the columns are ours

_OPEN_ACCOUNTS = f"""
INSERT INTO accounts (number, owner, currency, balance, state, seq, version, entry_time, opened_at)
SELECT number, owner, currency, balance, state, seq, version, {_EPOCH.format(column="entry_time")},
    {_EPOCH.format(column="opened_at")}
FROM unnest($1::text[], $2::uuid[], $3::text[], $4::bigint[], $5::text[], $6::bigint[],
    $7::bigint[], $8::bigint[], $9::bigint[])
AS row (number, owner, currency, balance, state, seq, version, entry_time, opened_at)
"""  # noqa: S608 - the columns are ours

_SENT = """
DELETE FROM outbox USING unnest($2::bigint[], $3::integer[]) AS sent (log_offset, step)
WHERE partition = $1 AND outbox.log_offset = sent.log_offset AND outbox.step = sent.step
"""

_QUARANTINE = f"""
INSERT INTO quarantine (partition, log_offset, appended_at, key, value, reason)
SELECT $1, log_offset, {_EPOCH.format(column="time")}, key, value, reason
FROM unnest($2::bigint[], $3::bigint[], $4::bytea[], $5::bytea[], $6::text[])
AS row (log_offset, time, key, value, reason)
"""  # noqa: S608 - the columns are ours


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

    async def write(
        self,
        decisions: Decisions,
        versions: dict[str, int],
        quarantined: Sequence[Quarantined],
        sent: Sequence[OutboxPlace],
        next_offset: int,
        fingerprint: bytes,
    ) -> None:
        """Write the batch and advance the partition to `next_offset`.

        `versions` are those that the changed accounts had before; raises `StaleAccounts` where one
        has another by now, and `RepeatsFound` where a leg has its outcome already. `sent` are
        outbox rows that the broker has acknowledged.
        """
        await self._open_accounts(decisions)
        await self._quarantine(quarantined)
        changed = [
            account
            for account in decisions.accounts.values()
            if account.number not in decisions.opened
        ]
        try:
            updated = await self._connection.fetchval(
                _WRITE,
                self._partition,
                next_offset,
                fingerprint,
                *ledger_rows.outcome_columns(decisions.outcomes),
                *ledger_rows.entry_columns(decisions.entries),
                *ledger_rows.account_columns(changed, versions),
                *ledger_rows.contra_columns(decisions.contra),
                *ledger_rows.outbox_columns(decisions.outbox),
                [offset for offset, _ in sent],
                [step for _, step in sent],
            )
        except asyncpg.UniqueViolationError as error:
            if error.constraint_name == "outcomes_pkey":
                raise RepeatsFound from error
            raise
        if updated != len(changed):
            raise StaleAccounts(f"{len(changed) - updated} accounts are not as remembered")

    async def _open_accounts(self, decisions: Decisions) -> None:
        opened = [decisions.accounts[number] for number in decisions.opened]
        if opened:
            await self._connection.execute(
                _OPEN_ACCOUNTS,
                [account.number for account in opened],
                [account.owner for account in opened],
                [account.currency for account in opened],
                [account.balance for account in opened],
                [account.state for account in opened],
                [account.seq for account in opened],
                [account.version for account in opened],
                [account.entry_time for account in opened],
                list(decisions.opened.values()),
            )

    async def _quarantine(self, records: Sequence[Quarantined]) -> None:
        if records:
            await self._connection.execute(
                _QUARANTINE,
                self._partition,
                [record.offset for record in records],
                [record.time for record in records],
                [record.key for record in records],
                [record.value for record in records],
                [record.reason for record in records],
            )

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
    """The store of one partition on its shard."""

    def __init__(self, pool: Pool, partition: int) -> None:
        self._pool = pool
        self.partition = partition

    async def claim(self, held: int | None = None) -> Claim:
        """Claim the partition: raise its epoch, commit that, and only then read what is there.

        The update waits for an orphaned transaction of an earlier claimant to end, and fences it.
        `held` is the epoch that this worker held before, if it did. Raises `Fenced` where another
        claimant came after that, or between.
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
            raise LookupError("The shard has no routing yet: run `microfin migrate` first.")
        return epoch

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
