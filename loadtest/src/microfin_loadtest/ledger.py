"""The audit's verdict on the ledger."""

from collections.abc import Sequence
from typing import Any

from microfin_tools.audit import AuditImpossible, AuditReport, audit


async def audit_at_rest(urls: Sequence[str]) -> dict[str, Any]:
    """Return the verdict of a full audit: `ok`, and what is wrong if it is not."""
    try:
        report = await audit(urls, at_rest=True)
    except AuditImpossible as error:
        return {"ok": False, "impossible": str(error)}
    return verdict(report)


def verdict(report: AuditReport) -> dict[str, Any]:
    """Return a load report's section about an audit."""
    return {
        "ok": report.ok,
        "violations": report.violations_total,
        "first": [violation.what for violation in report.violations[:5]],
        "operations": report.checked.operations,
        "quarantine": report.quarantine,
        "seconds": report.seconds,
    }
