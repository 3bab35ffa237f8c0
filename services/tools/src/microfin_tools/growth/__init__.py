"""Growing the number of partitions while money moves (docs/adr/0024-markers-as-cuts.md).

shards = [PostgresRouting(pool, shard) for shard, pool in enumerate(pools)]
growth = Growth(shards, MarkedLog(ends, producer), clock, say)
await growth.to(12)
"""

from microfin_tools.growth.growth import Growth, GrowthNotFinished, GrowthRefused
from microfin_tools.growth.marking import MarkedLog
from microfin_tools.growth.postgres_routing import PostgresRouting

__all__ = ["Growth", "GrowthNotFinished", "GrowthRefused", "MarkedLog", "PostgresRouting"]
