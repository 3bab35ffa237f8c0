"""Whether the ledger is right."""

from collections.abc import Sequence
from typing import Any

from microfin_tools.audit import AuditImpossible, AuditReport, audit


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
