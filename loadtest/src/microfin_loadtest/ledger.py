"""The audit's verdict on the ledger."""

from collections.abc import Sequence
from typing import Any

from microfin_tools.audit import AuditImpossible, AuditReport, audit


async def audit_at_rest(urls: Sequence[str], *, since: bool = False) -> dict[str, Any]:
    """Return the verdict of an audit: `ok`, and what is wrong if it is not.

    It is full, or `since` the last one of that kind.
    """
    try:
        report = await audit(urls, at_rest=True, since=since)
    except AuditImpossible as error:
        return {"ok": False, "impossible": str(error)}
    return verdict(report)


def verdict(report: AuditReport) -> dict[str, Any]:
    """Return a load report's section about an audit."""
    return {
        "ok": report.ok,
        "mode": report.mode,
        "violations": report.violations_total,
        "first": [violation.what for violation in report.violations[:5]],
        "operations": report.checked.operations,
        "quarantine": report.quarantine,
        "seconds": report.seconds,
    }
