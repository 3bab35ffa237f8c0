"""One shard's routing as a growth changes it, on the shard's PostgreSQL.

Every step is one transaction, and all that a growth knows stands in the row: whoever continues it
after the activator's death needs nothing else.
"""

from collections.abc import Mapping
from typing import Final
from uuid import UUID

import asyncpg
import msgspec

from microfin.ledger.lease import (
    ACTIVATION_LOCK_SECONDS,
    ACTIVATION_SECONDS,
    STALE_INTENT_SECONDS,
)
from microfin.ledger.routing import Routing
from microfin.postgres.connections import Pool

_LOCK_TIMEOUT: Final = f"SET LOCAL lock_timeout = '{ACTIVATION_LOCK_SECONDS}s'"


class PartitionState(msgspec.Struct, frozen=True):
    """How far a partition is, and the seconds since its owner last showed that it lives."""

    next_offset: int
    idle_seconds: float


class ShardState(msgspec.Struct, frozen=True):
    """A shard's routing and the partitions that have been claimed there."""

    shard: int
    routing: Routing
    partitions: dict[int, PartitionState]


class AnotherGrowth(Exception):
    """The shard carries the fresh intent of another growth, or another generation by now."""


class NotActivated(Exception):
    """The routing is as before: the intent is gone or too old, or a partition is not that far."""


class PostgresRouting:
    """The routing of one shard."""

    def __init__(self, pool: Pool, shard: int) -> None:
        self._pool = pool
        self.shard = shard

    async def state(self) -> ShardState:
        """Return the shard's routing and its partitions, of one moment."""
        async with (
            self._pool.acquire() as connection,
            connection.transaction(isolation="repeatable_read"),
        ):
            routing = await connection.fetchrow("SELECT generation, partition_count FROM routing")
            rows = await connection.fetch(
                "SELECT partition, next_offset,"
                " extract(epoch FROM clock_timestamp() - touched_at)::float8 AS idle_seconds"
                " FROM partitions"
            )
        if routing is None:
            raise LookupError(
                f"Shard {self.shard} has no routing yet: run `microfin migrate` first."
            )
        return ShardState(
            self.shard,
            Routing(routing["generation"], routing["partition_count"]),
            {
                row["partition"]: PartitionState(row["next_offset"], row["idle_seconds"])
                for row in rows
            },
        )

    async def prepare(self, current: Routing, intended: Routing, token: UUID) -> None:
        """Write the intent. Raises `AnotherGrowth` where one is fresh, or the routing changed."""
        if current.generation >= intended.generation:
            raise AnotherGrowth(f"Shard {self.shard} was grown by another command.")
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(_LOCK_TIMEOUT)
            prepared = await connection.fetchval(
                "UPDATE routing SET intended_generation = $1, intended_partition_count = $2,"
                " intent_token = $3, intended_at = clock_timestamp()"
                " WHERE generation = $4 AND partition_count = $5 AND (intent_token IS NULL"
                " OR intended_at < clock_timestamp() - $6 * interval '1 second') RETURNING 1",
                intended.generation,
                intended.partition_count,
                token,
                current.generation,
                current.partition_count,
                STALE_INTENT_SECONDS,
            )
        if prepared is None:
            raise AnotherGrowth(f"Shard {self.shard} is being grown by another command.")

    async def withdraw(self, token: UUID) -> None:
        """Take the intent back, if it is still the one of `token`."""
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(
                "UPDATE routing SET intended_generation = NULL, intended_partition_count = NULL,"
                " intent_token = NULL, intended_at = NULL WHERE intent_token = $1",
                token,
            )

    async def activate(
        self, current: Routing, intended: Routing, token: UUID, cuts: Mapping[int, int]
    ) -> None:
        """Make `intended` the routing, if the intent stands and each partition passed its cut.

        `current` is the routing that was prepared: a restored shard may be several growths behind.
        Raises `NotActivated` where nothing was changed. After any other error it is unknown.
        """
        try:
            async with self._pool.acquire() as connection, connection.transaction():
                await connection.execute(_LOCK_TIMEOUT)
                await self._recheck(connection, current, token, cuts)
                await connection.execute(
                    "UPDATE routing SET generation = $1, partition_count = $2,"
                    " intended_generation = NULL, intended_partition_count = NULL,"
                    " intent_token = NULL, intended_at = NULL",
                    intended.generation,
                    intended.partition_count,
                )
                await connection.execute(
                    "UPDATE partitions SET generation = $1, partition_count = $2",
                    intended.generation,
                    intended.partition_count,
                )
        except asyncpg.LockNotAvailableError as error:
            raise NotActivated("a partition's row was locked for too long") from error

    @staticmethod
    async def _recheck(
        connection: asyncpg.Connection, current: Routing, token: UUID, cuts: Mapping[int, int]
    ) -> None:
        standing = await connection.fetchval(
            "SELECT 1 FROM routing WHERE intent_token = $1 AND generation = $2"
            " AND partition_count = $3"
            " AND intended_at > clock_timestamp() - $4 * interval '1 second' FOR UPDATE",
            token,
            current.generation,
            current.partition_count,
            ACTIVATION_SECONDS,
        )
        if standing is None:
            raise NotActivated("the intent is gone or too old")
        rows = await connection.fetch(
            "SELECT partition, next_offset FROM partitions ORDER BY partition FOR UPDATE"
        )
        reached = {row["partition"]: row["next_offset"] for row in rows}
        behind = [number for number, cut in cuts.items() if reached.get(number, -1) < cut]
        if behind:
            raise NotActivated(f"partitions {behind} are not at their cuts")
