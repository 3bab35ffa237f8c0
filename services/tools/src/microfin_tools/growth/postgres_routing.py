"""One shard's routing, and how a growth changes it in the shard's PostgreSQL.

Every step is one transaction, and the row holds everything that a growth knows: another run that
continues it after the activator's death needs nothing else.
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
    """A partition's place in the log, and the seconds since its owner's last sign of life."""

    next_offset: int
    idle_seconds: float


class ShardState(msgspec.Struct, frozen=True):
    """A shard's routing and the partitions that have been claimed there."""

    shard: int
    routing: Routing
    partitions: dict[int, PartitionState]


class AnotherGrowth(Exception):
    """The shard has a fresh intent of another growth, or another generation by now."""


class NotActivated(Exception):
    """Nothing changed: the intent is gone or too old, or a partition has not reached its cut."""


class PostgresRouting:
    """The routing of one shard."""

    def __init__(self, pool: Pool, shard: int) -> None:
        self._pool = pool
        self.shard = shard

    async def state(self) -> ShardState:
        """Return the shard's routing and its partitions, both of the same moment."""
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
        """Write the intent. Raises `AnotherGrowth` if one is fresh or the routing has changed."""
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
        """Delete the intent, if it still has the `token`."""
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(
                "UPDATE routing SET intended_generation = NULL, intended_partition_count = NULL,"
                " intent_token = NULL, intended_at = NULL WHERE intent_token = $1",
                token,
            )

    async def activate(
        self, current: Routing, intended: Routing, token: UUID, cuts: Mapping[int, int]
    ) -> None:
        """Make `intended` the routing, if the intent is there and each partition passed its cut.

        `current` is the routing that was prepared: a restored shard may be several growths behind.
        Raises `NotActivated` if nothing was changed. After any other error nobody knows.
        """
        try:
            async with self._pool.acquire() as connection, connection.transaction():
                await connection.execute(_LOCK_TIMEOUT)
                await self._recheck(connection, current, token, cuts)
                await connection.execute(
                    "UPDATE partitions SET generation = $1, partition_count = $2",
                    intended.generation,
                    intended.partition_count,
                )
                # The last statement, because each lock before it may have been awaited for long.
                activated = await connection.fetchval(
                    "UPDATE routing SET generation = $1, partition_count = $2,"
                    " intended_generation = NULL, intended_partition_count = NULL,"
                    " intent_token = NULL, intended_at = NULL"
                    " WHERE intended_at > clock_timestamp() - $3 * interval '1 second' RETURNING 1",
                    intended.generation,
                    intended.partition_count,
                    STALE_INTENT_SECONDS,
                )
                if activated is None:
                    raise NotActivated("the intent became too old while locks were awaited")
        except asyncpg.LockNotAvailableError as error:
            raise NotActivated("a partition's row was locked for too long") from error

    @staticmethod
    async def _recheck(
        connection: asyncpg.Connection, current: Routing, token: UUID, cuts: Mapping[int, int]
    ) -> None:
        fresh = await connection.fetchval(
            "SELECT 1 FROM routing WHERE intent_token = $1 AND generation = $2"
            " AND partition_count = $3"
            " AND intended_at > clock_timestamp() - $4 * interval '1 second' FOR UPDATE",
            token,
            current.generation,
            current.partition_count,
            ACTIVATION_SECONDS,
        )
        if fresh is None:
            raise NotActivated("the intent is gone or too old")
        rows = await connection.fetch(
            "SELECT partition, next_offset FROM partitions ORDER BY partition FOR UPDATE"
        )
        reached = {row["partition"]: row["next_offset"] for row in rows}
        behind = [number for number, cut in cuts.items() if reached.get(number, -1) < cut]
        if behind:
            raise NotActivated(f"partitions {behind} are not at their cuts")
