"""Making a restored shard ready for its workers, in one transaction.

The restored rows of epochs, leases, sessions and growths are out of date. Most of all, epochs would
repeat: a worker that claimed after the backup and still lives would find its own epoch again.
"""

from collections.abc import Sequence
from typing import Final

from microfin.postgres.connections import Connection, Pool
from microfin_tools.recovery.checking import Recovery
from microfin_tools.recovery.report import CheckReport
from microfin_tools.recovery.shard_state import ShardState

_LOCK: Final = "SELECT partition, epoch, next_offset FROM partitions ORDER BY partition FOR UPDATE"

# Partitions that were first claimed after the backup have no row: without one their epochs would
# begin at 1 again. The time in milliseconds is above any count of claims.
_PLACES: Final = """
INSERT INTO partitions (partition, next_offset, epoch, generation, partition_count)
SELECT place.partition, place.next_offset, $3, generation, partition_count
FROM unnest($1::integer[], $2::bigint[]) AS place (partition, next_offset) CROSS JOIN routing
ON CONFLICT (partition) DO UPDATE SET
    epoch = excluded.epoch,
    touched_at = clock_timestamp(),
    fingerprint = CASE WHEN partitions.next_offset < excluded.next_offset THEN NULL
        ELSE partitions.fingerprint END,
    next_offset = greatest(partitions.next_offset, excluded.next_offset)
"""

_EPOCH: Final = """
SELECT 1 + greatest(max(epoch), (extract(epoch FROM clock_timestamp()) * 1000)::bigint)
FROM partitions
"""

# A session that was ended after the backup would be valid again.
_FORGET: Final = """
UPDATE routing SET intended_generation = NULL, intended_partition_count = NULL,
    intent_token = NULL, intended_at = NULL;
DELETE FROM leases;
DELETE FROM sessions;
"""


class PlaceMoved(Exception):
    """The restored shard has changed since the check: somebody works on it."""


async def prepare(recovery: Recovery, report: CheckReport, state: ShardState) -> int:
    """Prepare the shard as `report` says, if it is still in `state`; return its new epoch.

    Safe to repeat before the workers are started. If it raises `PlaceMoved`, nothing was changed.
    """
    async with recovery.pools[recovery.shard].acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL lock_timeout = '2s'")
        await _recheck(connection, state)
        epoch: int = await connection.fetchval(_EPOCH)
        await connection.execute(
            _PLACES,
            [place.partition for place in report.partitions],
            [place.start for place in report.partitions],
            epoch,
        )
        await connection.execute(_FORGET)
    await _forget_watermarks(recovery.pools)
    return epoch


async def _recheck(connection: Connection, state: ShardState) -> None:
    await connection.execute("SELECT 1 FROM routing FOR UPDATE")
    rows = {row[0]: tuple(row) for row in await connection.fetch(_LOCK)}
    checked = {
        row.partition: (row.partition, row.epoch, row.next_offset)
        for row in state.partitions.values()
    }
    if rows != checked:
        raise PlaceMoved(
            "A worker has claimed a partition of this shard meanwhile: stop the shard's workers, "
            "and run this again. Nothing was changed."
        )


async def _forget_watermarks(pools: Sequence[Pool]) -> None:
    """Let the next `microfin audit --since` audit everything, on all shards."""
    for pool in pools:
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute("DELETE FROM audit_watermarks")
