"""`microfin archive`."""

import sys
from datetime import timedelta
from typing import Annotated, Final

import typer
from rich.console import Console

from microfin.process.settings import CommonSettings
from microfin_tools.archive import Moved
from microfin_tools.archive import archive as archive_volumes
from microfin_tools.audit.legs import FORGOTTEN_AFTER_DAYS
from microfin_tools.cli.failures import run
from microfin_tools.cli.output import Json, print_json, print_rows
from microfin_tools.cli.shards import administration_urls

PROMISED_DAYS: Final = 400
"""How long an Idempotency-Key is remembered (docs/adr/0003-how-tables-age.md)."""

_LEAST_DAYS: Final = FORGOTTEN_AFTER_DAYS
"""More than twice the 14 days for which the log keeps records: no command of a leg that the ledger
forgets may come again."""


def archive(
    older_than_days: Annotated[
        int,
        typer.Option(
            min=_LEAST_DAYS,
            help="How old all outcomes of a volume must be. It must be more than the log keeps "
            "(`microfin log trim --keep-hours`), and than your oldest backup that you would "
            "restore.",
        ),
    ] = PROMISED_DAYS,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say which volumes would go.")
    ] = False,
    json: Json = False,
) -> None:
    """Move old volumes of the ledger to its archive, a database of its own for each shard.

    From the oldest on, each volume is copied, compared row by row, and removed from the ledger; the
    newest always stays. Statements, look-ups and audits go on to read what is in the archive, by
    MICROFIN_ARCHIVES. What the ledger forgets is its Idempotency-Keys: a request that repeats one
    of them is a new operation. So a volume stays until everything in it is older than 400 days and
    final.

    Needs MICROFIN_DATABASES_DIRECT and MICROFIN_ARCHIVES_DIRECT (the owner's role). First, once:
    create an empty database for each shard and run `microfin migrate --archives`. Works while
    money moves. Safe to run twice, to break off and to run again.

    \b
    Examples:
      microfin archive --dry-run
      microfin archive --older-than-days 800
    """
    if older_than_days < PROMISED_DAYS:
        _warn(
            f"Idempotency-Keys will be remembered for {older_than_days} days only, not for "
            f"{PROMISED_DAYS} as promised: a client who repeats an older request makes a new "
            "operation, which moves money again."
        )
    moved = run(_archive(timedelta(days=older_than_days), dry_run=dry_run))
    if json:
        print_json(moved)
    else:
        print_rows([_row(it) for it in moved], "The ledger has no volumes.")


async def _archive(older_than: timedelta, *, dry_run: bool) -> list[Moved]:
    settings = CommonSettings()
    console = Console(stderr=True, markup=False, highlight=False, emoji=False)

    def show(sentence: str) -> None:
        console.print(sentence, soft_wrap=True)

    return await archive_volumes(
        administration_urls(settings),
        settings.direct_archive_urls,
        older_than=older_than,
        dry_run=dry_run,
        progress=show,
    )


def _row(moved: Moved) -> dict[str, object]:
    return {
        "shard": moved.shard,
        "volume": moved.volume,
        "state": moved.state,
        "outcomes": moved.outcomes,
        "entries": moved.entries,
        "reason": moved.reason,
    }


def _warn(sentence: str) -> None:
    print(sentence, file=sys.stderr)  # noqa: T201 - the command's answer
