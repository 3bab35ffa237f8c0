"""Counts the operations that were decided. It also runs as a program in a pod of the worker's
image, which does not have this package; then it prints one JSON object:

    python -c "$(cat decision_counts.py)"
"""

import asyncio
import json
import os
from collections import Counter
from collections.abc import Sequence

from microfin.postgres.connections import connect


async def count_decided(urls: Sequence[str]) -> Counter[str]:
    """Return how many clients' operations all shards have decided, by the request's status.

    What is in an archive does not count, so archive nothing between two counts that are compared.
    `debited` is a transfer that has left its source; at rest, it was credited or refunded. The
    connection may go through a pooler, so it uses a transaction and no prepared statement.
    """
    counts: Counter[str] = Counter()
    for url in urls:
        connection = await connect(url, statement_cache_size=0)
        try:
            async with connection.transaction(readonly=True):
                rows = await connection.fetch(
                    # A number that begins with 0 is no account's: a growth's markers have it.
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
