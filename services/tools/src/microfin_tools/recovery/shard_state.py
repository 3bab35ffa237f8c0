"""The state of a shard's database, which a recovery reads before it changes anything."""

from typing import Any, Final

import msgspec

from microfin.ledger.lease import HOLD_SECONDS
from microfin.ledger.routing import Routing
from microfin.postgres.connections import Pool, read_snapshot

_ROUTING: Final = """
SELECT shard, shards, generation, partition_count, intent_token IS NOT NULL AS intended,
    coalesce(intended_at > clock_timestamp() - $1 * interval '1 second', false) AS fresh
FROM routing
"""
_PARTITIONS: Final = """
SELECT partition, epoch, next_offset, fingerprint, touched_at FROM partitions ORDER BY partition
"""


class ClaimedPartition(msgspec.Struct, frozen=True):
    """A row of `partitions`. `touched_at` only shows whether it changed."""

    partition: int
    epoch: int
    next_offset: int
    fingerprint: bytes | None
    touched_at: Any


class ShardState(msgspec.Struct, frozen=True, kw_only=True):
    """One shard's routing, partitions and schema, all of the same moment.

    `growing` says whether there is an intent for which API processes may hold commands. `lease` is
    the time at which an API process last renewed one; it only shows whether that changed.
    """

    shard: int
    shards: int
    routing: Routing
    growing: bool
    partitions: dict[int, ClaimedPartition]
    revision: str
    lease: Any


async def read_state(pool: Pool) -> ShardState:
    """Return the shard's state. Raises `LookupError` if `microfin migrate` has not run."""
    async with read_snapshot(pool) as connection:
        routing = await connection.fetchrow(_ROUTING, HOLD_SECONDS)
        partitions = await connection.fetch(_PARTITIONS)
        revision = await connection.fetchval("SELECT version_num FROM alembic_version")
        lease = await connection.fetchval("SELECT max(renewed_at) FROM leases")
    if routing is None:
        raise LookupError("A shard has no routing yet: run `microfin migrate` first.")
    return ShardState(
        shard=routing["shard"],
        shards=routing["shards"],
        routing=Routing(routing["generation"], routing["partition_count"]),
        growing=routing["intended"] and routing["fresh"],
        partitions={row["partition"]: ClaimedPartition(*row) for row in partitions},
        revision=revision,
        lease=lease,
    )


def changes(before: ShardState, after: ShardState) -> list[str]:
    """Return, as sentences, which processes worked on the shard between two reads."""
    workers = sorted(
        number for number, row in after.partitions.items() if before.partitions.get(number) != row
    )
    found = []
    if workers:
        found.append(
            f"The workers of partitions {', '.join(map(str, workers))} are at work on this shard: "
            "stop the workers of all its partitions, and run this again."
        )
    if after.lease is not None and after.lease != before.lease:
        found.append(
            "API processes send commands for this shard: stop all API processes, and run this "
            "again."
        )
    return found
