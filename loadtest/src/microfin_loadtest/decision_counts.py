"""Counts what was decided. Besides, its text is run in a pod of the worker's image, which does not
have this package, and prints one JSON object then:

    python -c "$(cat decision_counts.py)"
"""

import asyncio
import json
import os
from collections import Counter
from collections.abc import Sequence

import asyncpg


async def count_decided(urls: Sequence[str]) -> Counter[str]:
    """Return how many clients' operations all shards have decided, by the request's status.

    `debited` is a transfer that has left its source; at rest, it was credited or refunded. The way
    may lead through a pooler, so there is a transaction and no prepared statement.
    """
    counts: Counter[str] = Counter()
    for url in urls:
        connection = await asyncpg.connect(url, statement_cache_size=0)
        try:
            async with connection.transaction(readonly=True):
                rows = await connection.fetch(
                    # An account that begins with 0 is none: a growth marks the log by its number.
                    "SELECT status, count(*) FROM outcomes WHERE leg = 'request'"
                    " AND account NOT LIKE '0%' GROUP BY status"
                )
        finally:
            await connection.close()
        counts.update({row["status"]: row["count"] for row in rows})
    return counts


if __name__ == "__main__":
    databases = os.environ["MICROFIN_DATABASES"].split()
    print(json.dumps({"decided": asyncio.run(count_decided(databases))}))
