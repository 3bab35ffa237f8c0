"""`microfin audit`."""

import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from microfin.process.settings import CommonSettings
from microfin_tools.audit import AuditReport, Violation
from microfin_tools.audit import audit as audit_shards
from microfin_tools.cli.failures import NO, run
from microfin_tools.cli.log_ends import KafkaFingerprints, KafkaLogEnds
from microfin_tools.cli.output import Json, print_fields, print_json, print_text
from microfin_tools.cli.shards import archive_reading_urls, reading_urls


def audit(
    at_rest: Annotated[
        bool,
        typer.Option("--at-rest", help="Nothing is moving: a transfer under way is a violation."),
    ] = False,
    since: Annotated[
        bool,
        typer.Option(
            "--since", help="Audit only what came after the last --since that found nothing."
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Check that the ledger keeps its invariants, on all shards.

    \b
    1  zero sum             accounts and contra accounts add up to 0
    2  never negative       no balance is below 0
    3  explained balance    balances, seq and statements agree
    4  once                 every leg has one outcome and one effect, as it was requested
    5  durable              the log holds the records decided last (with MICROFIN_KAFKA)
    6  one writer           partitions decide by the routing of their shard
    8  arrival              every debited transfer is credited or refunded, once
    13 held                 what is held is what the open holds have left

    Works while the platform runs, in one snapshot of each shard. A difference between snapshots is
    looked up again before it counts. Reads MICROFIN_DATABASES (role microfin_auditor), or
    MICROFIN_DATABASES_DIRECT if that is not set. Where old volumes are in the archive, it reads
    MICROFIN_ARCHIVES as well; `--since` does not need them. If MICROFIN_KAFKA is set, it asks
    Kafka for the log's end and for the records that were decided last, also to distinguish a
    transfer that is under way from a lost one.

    Exit code 0: all invariants hold. 1: there are violations. 2: the audit could not be made.

    \b
    Examples:
      microfin audit --at-rest          after a test or before an upgrade
      microfin audit --since --json     every minute, by a timer
    """
    report = run(_audit(at_rest=at_rest, since=since))
    if json:
        print_json(report)
    else:
        _print_report(report)
    if not report.ok:
        raise typer.Exit(NO)


async def _audit(*, at_rest: bool, since: bool) -> AuditReport:
    settings = CommonSettings()
    urls = reading_urls(settings)
    asks_log = "kafka" in settings.model_fields_set
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not sys.stderr.isatty(),
    ) as display:
        task = display.add_task("connecting", total=None)

        def show(title: str, done: int, total: int) -> None:
            display.update(task, description=title, completed=done, total=total)

        return await audit_shards(
            urls,
            at_rest=at_rest,
            since=since,
            progress=show,
            log_ends=KafkaLogEnds(settings) if asks_log else None,
            fingerprints_at=KafkaFingerprints(settings) if asks_log else None,
            archives=archive_reading_urls(settings),
        )


def _print_report(report: AuditReport) -> None:
    for violation in report.violations:
        _print_violation(violation)
    unlisted = report.violations_total - len(report.violations)
    if unlisted:
        print_text(f"… and {unlisted} more.\n")
    checked, moving = report.checked, report.in_transit
    closed = ", ".join(row["account"] for row in report.closed_with_balance)
    print_fields(
        {
            "checked": f"{checked.operations} operations, {checked.outcomes} outcomes, "
            f"{checked.entries} entries, {checked.accounts} accounts on {report.shards} shards"
            + (" since the last audit" if report.mode == "since" else ""),
            "in transit": f"{moving.operations}"
            + (
                f", {moving.in_outbox} of them in an outbox, {moving.quarantined} in quarantine, "
                f"the oldest for {moving.oldest_seconds} s"
                if moving.operations
                else ""
            ),
            "closed accounts with money": closed or None,
            "quarantine": report.quarantine,
            "outbox": report.outbox,
            "seconds": report.seconds,
        }
    )
    if report.ok:
        print_text("All invariants hold.")
    else:
        print_text(f"{report.violations_total} violations.")


def _print_violation(violation: Violation) -> None:
    place = "" if violation.shard is None else f" (shard {violation.shard})"
    print_text(f"Invariant {violation.invariant}{place}: {violation.what}")
    for row in violation.rows:
        shown = ", ".join(
            f"{name}={value}" for name, value in row.items() if value is not None and value != ""
        )
        print_text(f"  {shown}")
    print_text("")
