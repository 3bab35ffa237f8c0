"""Counts what was decided, from inside the cluster; runs in a pod of the worker's image.

    python -c "$(cat decided_in_pod.py)"

Prints one JSON object: how many clients' operations all shards have decided, by the request's
status, as `ledger.count_decided` does beside the databases.
"""

import asyncio
import json
import os
from collections import Counter

import asyncpg


async def count(urls: list[str]) -> Counter[str]:
    """Return the counts over all shards; through a pooler, so inside transactions."""
    counts: Counter[str] = Counter()
    for url in urls:
        connection = await asyncpg.connect(url, statement_cache_size=0)
        try:
            async with connection.transaction(readonly=True):
                rows = await connection.fetch(
                    "SELECT status, count(*) FROM outcomes WHERE leg = 'request' GROUP BY status"
                )
        finally:
            await connection.close()
        counts.update({row["status"]: row["count"] for row in rows})
    return counts


if __name__ == "__main__":
    print(json.dumps({"decided": asyncio.run(count(os.environ["MICROFIN_DATABASES"].split()))}))
