"""The auditor: checks invariants 1 to 6 and 8 (docs/guide/invariants.md) on all shards.

report = await audit(settings.database_urls)
assert report.ok, report.violations
"""

import time
from collections.abc import Sequence

import asyncpg

from microfin.postgres.archives import WrongArchive
from microfin.postgres.shards import NotMigrated, WrongShard
from microfin_tools.audit.checker import Progress
from microfin_tools.audit.impossible import AuditImpossible, explain, first
from microfin_tools.audit.log_places import FingerprintsAt
from microfin_tools.audit.report import AuditReport, Checked, InTransit, Violation
from microfin_tools.audit.run import AuditRun
from microfin_tools.audit.second_look import LogEnds
from microfin_tools.audit.shard import open_shards

__all__ = [
    "AuditImpossible",
    "AuditReport",
    "Checked",
    "FingerprintsAt",
    "InTransit",
    "LogEnds",
    "Progress",
    "Violation",
    "audit",
]


async def audit(
    urls: Sequence[str],
    *,
    at_rest: bool = False,
    since: bool = False,
    progress: Progress | None = None,
    log_ends: LogEnds | None = None,
    fingerprints_at: FingerprintsAt | None = None,
    archives: Sequence[str] = (),
) -> AuditReport:
    """Audit the shards at `urls` (all of them, shard 0 first), pooled or direct.

    `archives` are the URLs of their archives; a full audit of a ledger whose old volumes are there
    reads both.

    `at_rest` says that no money moves: then a transfer that has not arrived is a violation;
    otherwise it is only counted. `since` audits only what came after the last audit with `since`
    that found nothing (the first one is a full audit), and stores where it ended. `log_ends`
    returns the log's end offsets: no partition may be beyond them, and by them a live audit
    distinguishes a transfer that is in the log from a lost one. `fingerprints_at` identifies the
    records that were decided last. Raises `AuditImpossible` if the databases do not answer or are
    not the ledger's shards.
    """
    started = time.monotonic()
    run = AuditRun(
        at_rest=at_rest,
        since=since,
        progress=progress,
        log_ends=log_ends,
        fingerprints_at=fingerprints_at,
        archive_urls=archives,
    )
    impossible: AuditImpossible | None = None
    try:
        async with open_shards(urls) as shards:
            report = await run.audit(shards)
    # Some releases of Python 3.11 wrap an exception from this block into a group.
    except* (OSError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as failures:
        impossible = AuditImpossible(explain(failures))
        impossible.__cause__ = failures
    except* (AuditImpossible, WrongArchive, WrongShard, NotMigrated) as failures:
        impossible = AuditImpossible(str(first(failures)))
    if impossible is not None:
        raise impossible
    report.seconds = round(time.monotonic() - started, 3)
    return report
