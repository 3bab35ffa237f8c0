"""`microfin recover`: a shard that was restored from an older backup."""

import contextlib
import sys
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any

import msgspec
import typer

from microfin.ledger.wire import Command
from microfin.process.settings import CommonSettings
from microfin_tools.cli.failures import NO, Refused, run
from microfin_tools.cli.output import Json, print_json, print_rows, print_text, time_text
from microfin_tools.cli.sending import connected_producer
from microfin_tools.cli.shards import (
    administered_shards,
    archive_reading_urls,
    archives_to_read,
    partition_under_routing,
)
from microfin_tools.cli.topic import open_topic
from microfin_tools.recovery import (
    CheckReport,
    PlaceMoved,
    Recovery,
    ReplayNotFinished,
    VerifyReport,
)
from microfin_tools.recovery import check as check_shard
from microfin_tools.recovery import prepare as prepare_shard
from microfin_tools.recovery import verify as verify_shard
from microfin_tools.recovery.report import LostUser, Transfer

recover = typer.Typer(
    no_args_is_help=True,
    help="""Recover a shard that was restored from an older backup.

    The log still holds the commands decided after the backup; the workers decide them again. The
    order is: stop the API and the shard's workers, restore the backup, `check`, `prepare`, start
    the workers, `verify`, start the API. Each step may be repeated. docs/runbooks/restored-shard.md
    describes all of it.

    Needs MICROFIN_DATABASES_DIRECT (all shards) and MICROFIN_KAFKA.
    """,
)

Shard = Annotated[int, typer.Option(min=0, help="The number of the restored shard.")]


@recover.command()
def check(shard: Shard, json: Json = False) -> None:
    """Show what a recovery would do and what would be lost. Changes nothing.

    Compares the restored shard with the log and with the other shards, and reads the part of the
    log that will be decided again. Exit code 0: `prepare` will succeed, and the log holds
    everything. 1: the recovery is refused, or something is lost; the report says what.

    \b
    Example:
      microfin recover check --shard 0
    """
    report, _ = run(_check(shard))
    _print_check(report, as_json=json)
    if not report.ok:
        raise typer.Exit(NO)


@recover.command()
def prepare(
    shard: Shard,
    accept_loss: Annotated[
        bool,
        typer.Option(
            "--accept-loss",
            help="Go on although the log no longer holds some commands that the backup lacks.",
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Check the restored shard, and make it ready for its workers.

    Raises the epochs above all that were ever used, so that no worker from before the restore can
    commit. Deletes the intent of an unfinished growth, API leases, audit watermarks and, on shard
    0, sessions: people sign in again. Moves no money. If it is refused, it changes nothing.

    \b
    Example:
      microfin recover prepare --shard 0
    """
    report, epoch = run(_prepare(shard, accept_loss=accept_loss))
    _print_check(report, as_json=json, epoch=epoch)
    if not json and epoch is not None:
        print_text(
            f"\nShard {shard} is prepared (epoch {epoch}). Start its workers, then "
            f"`microfin recover verify --shard {shard}`."
        )
    if epoch is None:
        raise typer.Exit(NO)


@recover.command()
def verify(
    shard: Shard,
    send: Annotated[
        bool,
        typer.Option(
            "--send", help="Send the missing commands of transfers again, if the log has lost them."
        ),
    ] = False,
    patience: Annotated[
        float, typer.Option(min=1, help="Seconds without progress after which it gives up.")
    ] = 60.0,
    json: Json = False,
) -> None:
    """Wait until the workers have decided the log, audit, and list what could not be recovered.

    If the log held everything, the list is empty. Otherwise it lists, by operation, the transfers
    of which a leg is missing: those that can be completed, which --send does, and those that
    cannot. On shard 0 it lists people whose sign-up is lost; their accounts still exist. May run
    while the API serves clients.

    Exit code 0: everything is there, and the audit finds nothing. 1: not so, or not yet.

    \b
    Examples:
      microfin recover verify --shard 0
      microfin recover verify --shard 0 --send --json
    """
    report = run(_verify(shard, patience, send=send))
    if json:
        print_json(report)
    else:
        _print_verified(report)
    if not report.ok:
        raise typer.Exit(NO)


@contextlib.asynccontextmanager
async def _recovery(shard: int) -> AsyncIterator[Recovery]:
    settings = CommonSettings()
    # To read a large shard takes minutes, and not the seconds of an ordinary command.
    patient = settings.model_copy(update={"database_timeout": 600.0})
    async with (
        administered_shards(patient) as pools,
        archives_to_read(patient) as archives,
        open_topic(settings) as topic,
    ):
        yield Recovery(
            settings, pools, archives, archive_reading_urls(settings), topic, shard, _say
        )


async def _check(shard: int) -> tuple[CheckReport, Any]:
    async with _recovery(shard) as recovery:
        return await check_shard(recovery)


async def _prepare(shard: int, *, accept_loss: bool) -> tuple[CheckReport, int | None]:
    async with _recovery(shard) as recovery:
        report, state = await check_shard(recovery)
        if report.refusals or (report.losses and not accept_loss):
            return report, None
        try:
            return report, await prepare_shard(recovery, report, state)
        except PlaceMoved as error:
            raise Refused(str(error)) from error


async def _verify(shard: int, patience: float, *, send: bool) -> VerifyReport:
    async with _recovery(shard) as recovery, contextlib.AsyncExitStack() as stack:
        sending = None
        if send:
            producer = await stack.enter_async_context(connected_producer(recovery.settings))

            async def sending(command: Command) -> None:
                partition, generation = await partition_under_routing(
                    recovery.pools, command.account
                )
                await producer.send(
                    partition, msgspec.structs.replace(command, generation=generation)
                )

        try:
            return await verify_shard(recovery, patience, sending)
        except ReplayNotFinished as error:
            raise Refused(str(error)) from error


def _say(progress: str) -> None:
    print(progress, file=sys.stderr)  # noqa: T201 - progress is for people, not for pipes


def _print_check(report: CheckReport, *, as_json: bool, epoch: int | None = None) -> None:
    if as_json:
        print_json({**msgspec.to_builtins(report), "epoch": epoch})
        return
    print_text(
        f"Shard {report.shard}: routing generation {report.generation}, "
        f"{report.partition_count} partitions."
    )
    print_rows([msgspec.to_builtins(it) for it in report.partitions], "It has no partitions.")
    for title, sentences in (
        ("Refused", report.refusals),
        ("Lost", report.losses),
        ("To be known", report.notes),
    ):
        if sentences:
            print_text(f"\n{title}:")
        for sentence in sentences:
            print_text(f"  {sentence}")
    _print_transfers("Transfers of which a leg is in no log and no outbox", report.transfers)
    _print_users(report.users)
    if report.losses and epoch is None:
        print_text(
            "\nA younger backup would lose less. To go on with this one: `microfin recover prepare "
            f"--shard {report.shard} --accept-loss`."
        )
    if report.ok:
        print_text("\nThe log holds everything that was decided after the backup.")


def _print_verified(report: VerifyReport) -> None:
    _print_transfers("Sent again", report.sent)
    _print_transfers("Owed: --send sends what is missing", report.owed)
    _print_transfers("Not recoverable", report.contradictory)
    _print_users(report.users)
    audit = report.audit
    print_text(
        f"\nAudit: {audit.violations_total} violations, {audit.checked.operations} operations, "
        f"{audit.in_transit.operations} in transit."
    )
    for violation in audit.violations:
        print_text(f"  Invariant {violation.invariant}: {violation.what}: {violation.rows}")
    if report.ok:
        print_text("Everything that the log held is there, and all invariants hold.")


def _print_transfers(title: str, transfers: Sequence[Transfer]) -> None:
    if transfers:
        print_text(f"\n{title}:")
        rows = [{**msgspec.to_builtins(it), "time": time_text(it.time)} for it in transfers]
        print_rows(rows, "")


def _print_users(users: Sequence[LostUser]) -> None:
    if users:
        print_text(
            "\nPeople who signed up after the backup; `microfin user create … --id USER` gives "
            "them their accounts back:"
        )
        print_rows([{"user": it.user, "accounts": " ".join(it.accounts)} for it in users], "")
