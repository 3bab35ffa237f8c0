"""Growing the number of partitions while money moves (design, section 4, "Growing").

shards = [PostgresRouting(pool, shard) for shard, pool in enumerate(pools)]
growth = Growth(shards, ends, clock, say)
await growth.to(12)
"""

from microfin.growth.growth import Growth, GrowthNotFinished, GrowthRefused
from microfin.growth.postgres_routing import PostgresRouting

__all__ = ["Growth", "GrowthNotFinished", "GrowthRefused", "PostgresRouting"]
