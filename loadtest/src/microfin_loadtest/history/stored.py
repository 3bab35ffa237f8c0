"""Storing a history in the shards' tables: by COPY, in one transaction for each shard.

Until the last row is there nothing of it can be seen. Workers and API processes may go on: the
accounts are new, and the offsets are of a log that nobody reads.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from microfin.ledger.operation import Outcome
from microfin.ledger.records import Account, Entry
from microfin.postgres.connections import Connection, connect
from microfin_loadtest.history.decided import Decided, Past

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_OUTCOMES: Final = (
    "operation_id",
    "leg",
    "kind",
    "status",
    "account",
    "counterparty",
    "user_id",
    "amount",
    "currency",
    "seq",
    "balance",
    "counterparty_seq",
    "reason",
    "at_account",
    "needed",
    "available",
    "body_hash",
    "partition",
    "log_offset",
    "at",
)
_ENTRIES: Final = (
    "account",
    "seq",
    "amount",
    "balance_after",
    "operation_id",
    "leg",
    "kind",
    "contra",
    "counterparty",
    "partition",
    "at",
)
_ACCOUNTS: Final = (
    "number",
    "owner",
    "currency",
    "balance",
    "state",
    "seq",
    "version",
    "entry_time",
    "opened_at",
)
_CONTRA: Final = """
INSERT INTO contra_balances (partition, contra, currency, balance) VALUES ($1, $2, $3, $4)
ON CONFLICT (partition, contra, currency)
DO UPDATE SET balance = contra_balances.balance + excluded.balance
"""
_FIRST_OFFSETS: Final = """
SELECT partition, least(0, (SELECT min(log_offset) FROM outcomes
    WHERE outcomes.partition = partitions.partition)) FROM partitions
"""


class Shard:
    """One shard while a history is written into it; use it as a context."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: Connection = None
        self._transaction: Any = None

    async def __aenter__(self) -> "Shard":
        """Connect and begin the transaction."""
        self._connection = await connect(self._url)
        self._transaction = self._connection.transaction()
        await self._transaction.start()
        return self

    async def __aexit__(self, kind: object, error: object, where: object) -> None:
        """Commit if the block raised nothing, and clean the tables as after years of work."""
        try:
            if error is not None:
                await self._transaction.rollback()
                return
            await self._transaction.commit()
            await self._connection.execute("VACUUM (FREEZE, ANALYZE) accounts, entries, outcomes")
        finally:
            await self._connection.close()

    async def first_offsets(self) -> dict[int, int]:
        """Return, by partition, the lowest offset that it has decided, at most 0."""
        return dict(await self._connection.fetch(_FIRST_OFFSETS))

    async def write(self, decided: Sequence[Decided]) -> None:
        """Add outcomes and entries."""
        outcomes = (_outcome(it.partition, row) for it in decided for row in it.outcomes)
        entries = (_entry(it.partition, row) for it in decided for row in it.entries)
        await self._copy("outcomes", outcomes, _OUTCOMES)
        await self._copy("entries", entries, _ENTRIES)

    async def write_end(self, past: Past, partitions: Sequence[int]) -> None:
        """Add the accounts and contra balances of these partitions as they are at the end."""
        for partition in partitions:
            accounts = past.accounts[partition]
            await self._copy("accounts", _accounts(accounts, past.opened), _ACCOUNTS)
            for (contra, currency), change in past.contra[partition].items():
                await self._connection.execute(_CONTRA, partition, contra, currency, change)

    async def _copy(
        self, table: str, rows: Iterator[tuple[Any, ...]], columns: Sequence[str]
    ) -> None:
        await self._connection.copy_records_to_table(table, records=rows, columns=columns)


def _moment(milliseconds: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=milliseconds)


def _outcome(partition: int, it: Outcome) -> tuple[Any, ...]:
    return (
        it.operation,
        it.leg,
        it.kind,
        it.status,
        it.account,
        it.counterparty,
        it.user or None,
        it.amount,
        it.currency,
        it.seq,
        it.balance,
        it.counterparty_seq,
        it.reason,
        it.at_account,
        it.needed,
        it.available,
        it.body_hash,
        partition,
        it.offset,
        _moment(it.time),
    )


def _entry(partition: int, it: Entry) -> tuple[Any, ...]:
    return (
        it.account,
        it.seq,
        it.amount,
        it.balance_after,
        it.operation,
        it.leg,
        it.kind,
        it.contra,
        it.counterparty,
        partition,
        _moment(it.time),
    )


def _accounts(
    accounts: Mapping[str, Account], opened: Mapping[str, int]
) -> Iterator[tuple[Any, ...]]:
    for it in accounts.values():
        yield (
            it.number,
            it.owner,
            it.currency,
            it.balance,
            it.state,
            it.seq,
            it.version,
            _moment(it.entry_time),
            _moment(opened[it.number]),
        )
