"""A history in one shard: past volumes are written apart from the ledger, then added to it at once.

A volume's tables are filled before they have keys, because random keys in a growing index would
cost most of the time. Until the end nothing can be seen of them. Workers and API processes may go
on: the accounts are new, and the offsets are of a log that nobody reads.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final
from uuid import UUID

import msgspec

from microfin.ledger.records import Account
from microfin.ledger.routing import Routing
from microfin.postgres.connections import Connection, connect
from microfin_loadtest.errors import LoadImpossible
from microfin_loadtest.history.rows import ACCOUNTS, ENTRIES, OUTCOMES, account_lines

_CHUNK: Final = 1 << 18
"""Bytes that are handed to the socket at once."""

_PAUSE_SECONDS: Final = 0.05

_LINES: Final = 5_000
"""Lines of accounts that are joined at once."""

_SETTINGS: Final = """
SET maintenance_work_mem = '192MB'; SET synchronous_commit = off;
SET idle_in_transaction_session_timeout = 0; SET statement_timeout = 0
"""
_LOCK: Final = "SELECT pg_try_advisory_lock(hashtext('microfin_loadtest.history'))"
_PLACE: Final = """
SELECT generation, partition_count, outcomes_per_volume,
    (SELECT min(volume) FROM volumes) AS oldest,
    EXISTS (SELECT FROM archived_volumes) AS archived
FROM routing
"""
_FIRST_OFFSETS: Final = """
SELECT partition, least(0, (SELECT min(log_offset) FROM outcomes
    WHERE outcomes.partition = partitions.partition)) FROM partitions
"""
_UNFINISHED: Final = r"""
SELECT nspname FROM pg_namespace WHERE nspname ~ '^volume_m\d+$'
    AND NOT EXISTS (SELECT FROM volumes WHERE nspname = 'volume_m' || -volume)
"""
_UNSUMMED: Final = """
SELECT EXISTS (SELECT FROM volumes
    WHERE (summed_chunks < 131072 OR summed_accounts < 100000)
        AND volume < (SELECT max(volume) FROM volumes))
"""
_OWNERS: Final = """
INSERT INTO users (id, email, name, password_hash) VALUES ($1, $2, 'Owner in the past', '!')
"""
_CONTRA: Final = """
INSERT INTO contra_balances (partition, contra, currency, balance) VALUES ($1, $2, $3, $4)
ON CONFLICT (partition, contra, currency)
DO UPDATE SET balance = contra_balances.balance + excluded.balance
"""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a shard is: its routing, its oldest volume, and how many outcomes a volume takes."""

    routing: Routing
    oldest: int
    outcomes_per_volume: int


class Lines(msgspec.Struct, frozen=True):
    """Lines of outcomes and of entries for COPY."""

    outcomes: bytes
    entries: bytes


class Shard:
    """One shard while a history is written into it; use it as a context.

    The calls are: `begin_volume`, `write` for each piece, and `end_volume`, for one volume after
    the other; then `begin_adding`, the other `add_…`, and `commit`.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: Connection = None
        self._transaction: Any = None
        self._home = ""

    async def __aenter__(self) -> "Shard":
        """Connect, and remove what a history that was interrupted has left.

        Raises LoadImpossible if somebody else writes a history.
        """
        self._connection = await connect(self._url)
        try:
            await self._connection.execute(_SETTINGS)
            if not await self._connection.fetchval(_LOCK):
                raise LoadImpossible("Another `fill` is at work here: wait until it has ended.")
            await self._remove_unfinished()
        except BaseException:
            await self._connection.close()
            raise
        return self

    async def __aexit__(self, kind: object, error: object, where: object) -> None:
        """Remove what was written, if it has not become part of the ledger."""
        try:
            if error is not None and not self._connection.is_closed():
                if self._transaction is not None:
                    await self._transaction.rollback()
                await self._remove_unfinished()
        finally:
            await self._connection.close()

    async def place(self) -> Place:
        """Return where the shard is.

        Raises LoadImpossible if its old volumes are in an archive, which goes on from volume to
        volume: nothing can be put before it.
        """
        row = await self._connection.fetchrow(_PLACE)
        if row["archived"]:
            raise LoadImpossible(
                "Old volumes of this ledger are in its archive, so nothing can be put before them: "
                "fill another ledger, or fill before you archive."
            )
        return Place(
            routing=Routing(row["generation"], row["partition_count"]),
            oldest=row["oldest"],
            outcomes_per_volume=row["outcomes_per_volume"],
        )

    async def first_offsets(self) -> dict[int, int]:
        """Return, by partition, the lowest offset that it has decided, at most 0."""
        return dict(await self._connection.fetch(_FIRST_OFFSETS))

    async def account_numbers(self) -> frozenset[str]:
        """Return the numbers of all accounts."""
        rows = await self._connection.fetch("SELECT number FROM accounts")
        return frozenset(row["number"] for row in rows)

    async def begin_volume(self, volume: int) -> None:
        """Make the tables of a volume below 0."""
        self._home = f"volume_m{-volume}"
        await self._begin()
        await self._connection.execute("SELECT make_volume($1)", volume)
        for table in ("outcomes", "entries"):
            # With this, it becomes part of the ledger without reading it.
            await self._connection.execute(
                f"ALTER TABLE {self._home}.{table} ADD CONSTRAINT in_volume"
                f" CHECK (volume = {volume})"
            )

    async def write(self, lines: Lines) -> None:
        """Add rows to the volume."""
        # FREEZE: nothing will have to write these pages again, and it is allowed in the transaction
        # that has made the table.
        await self._copy("outcomes", lines.outcomes, OUTCOMES)
        await self._copy("entries", lines.entries, ENTRIES)

    async def end_volume(self) -> None:
        """Keep the volume's rows; they are not part of the ledger yet."""
        await self._commit()

    async def begin_adding(self, volumes: Iterable[int]) -> None:
        """Begin to add the volumes to the ledger; others see it after `commit`."""
        await self._begin()
        for volume in volumes:
            await self._connection.execute("SELECT add_volume($1)", volume)
            for table in ("outcomes", "entries"):
                await self._connection.execute(
                    f"ALTER TABLE volume_m{-volume}.{table} DROP CONSTRAINT in_volume"
                )

    async def add_accounts(self, accounts: Iterable[Account], opened: Mapping[str, int]) -> None:
        """Add accounts as they are at the end of the history."""
        lines = account_lines(accounts, opened)
        await self._connection.copy_to_table(
            "accounts", source=_joined(lines), columns=ACCOUNTS, format="text"
        )

    async def add_contra(self, partition: int, changes: Mapping[tuple[str, str], int]) -> None:
        """Change a partition's contra balances, by contra account and currency."""
        for (contra, currency), change in changes.items():
            await self._connection.execute(_CONTRA, partition, contra, currency, change)

    async def add_owners(self, owners: Sequence[str]) -> None:
        """Add users with these ids who cannot sign in: they have no password."""
        rows = [(UUID(owner), f"past-{owner}@example.com") for owner in owners]
        await self._connection.executemany(_OWNERS, rows)

    async def forget_audits(self) -> None:
        """Let the next `audit --since` look at everything: it knows another sum of all entries, and
        looks only at what is in the log after it."""
        await self._connection.execute("DELETE FROM audit_watermarks")

    async def commit(self) -> None:
        """Make the history part of the ledger."""
        await self._connection.execute("SET LOCAL synchronous_commit = on")
        await self._commit()

    async def clean(self) -> None:
        """Leave the tables as after years of work: vacuumed, and known to the planner."""
        await self._connection.execute("VACUUM (ANALYZE) accounts, entries, outcomes")

    async def sum_up(self) -> None:
        """Write the summaries of all full volumes, as the workers' keepers would in time."""
        while await self._connection.fetchval(_UNSUMMED):
            if not await self._connection.fetchval("SELECT sum_up_volume()"):
                await asyncio.sleep(_PAUSE_SECONDS)  # A keeper is at it; only one can be.

    async def _copy(self, table: str, lines: bytes, columns: Sequence[str]) -> None:
        await self._connection.copy_to_table(
            table,
            schema_name=self._home,
            source=_chunks(lines),
            columns=columns,
            format="text",
            freeze=True,
        )

    async def _begin(self) -> None:
        self._transaction = self._connection.transaction()
        await self._transaction.start()

    async def _commit(self) -> None:
        transaction, self._transaction = self._transaction, None
        await transaction.commit()

    async def _remove_unfinished(self) -> None:
        for row in await self._connection.fetch(_UNFINISHED):
            await self._connection.execute(f"DROP SCHEMA {row['nspname']} CASCADE")


async def _chunks(lines: bytes) -> AsyncIterator[memoryview]:
    view = memoryview(lines)
    for start in range(0, len(view), _CHUNK):
        yield view[start : start + _CHUNK]


async def _joined(lines: Iterator[str]) -> AsyncIterator[bytes]:
    while piece := "".join(islice(lines, _LINES)):
        yield piece.encode()
