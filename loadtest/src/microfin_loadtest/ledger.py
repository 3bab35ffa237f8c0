"""What the databases say: how many operations were decided, and whether the ledger is right."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import asyncpg

from microfin.audit import AuditImpossible, AuditReport, audit


async def count_decided(urls: Sequence[str]) -> Counter[str]:
    """Return how many clients' operations all shards have decided, by the request's status.

    `debited` is a transfer that has left its source; at rest, it was credited or refunded.
    """
    counts: Counter[str] = Counter()
    for url in urls:
        connection = await asyncpg.connect(url)
        try:
            rows = await connection.fetch(
                "SELECT status, count(*) FROM outcomes WHERE leg = 'request' GROUP BY status"
            )
        finally:
            await connection.close()
        counts.update({row["status"]: row["count"] for row in rows})
    return counts


async def audit_at_rest(urls: Sequence[str]) -> dict[str, Any]:
    """Return the verdict of a full audit: `ok`, and otherwise what is wrong."""
    try:
        report = await audit(urls, at_rest=True)
    except AuditImpossible as error:
        return {"ok": False, "impossible": str(error)}
    return verdict(report)


def verdict(report: AuditReport) -> dict[str, Any]:
    """Return what a load report says of an audit."""
    return {
        "ok": report.ok,
        "violations": report.violations_total,
        "first": [violation.what for violation in report.violations[:5]],
        "operations": report.checked.operations,
        "quarantine": report.quarantine,
        "seconds": report.seconds,
    }
