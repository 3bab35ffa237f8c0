"""`microfin migrate`."""

from typing import Annotated

import typer

from microfin.cli.failures import reported
from microfin.cli.output import Json, print_json, print_rows
from microfin.cli.shards import administration_urls
from microfin.migrations.run import migrate as migrate_shards
from microfin.settings import CommonSettings


def migrate(
    partitions: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="How many partitions a new ledger starts with, a multiple of the shards. An "
            "existing one keeps its own. Left out: 3, or the next multiple.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Bring the databases of all shards to the newest schema.

    Makes the roles and tables that are missing and, in a new ledger, routing generation 1. Needs
    MICROFIN_DATABASES_DIRECT: past the pooler, with the owner's role. Safe to run twice and at the
    same time, and while the platform runs.

    \b
    Examples:
      microfin migrate --partitions 6
      MICROFIN_DATABASES_DIRECT_FILE=/run/secrets/direct microfin migrate
    """
    with reported():
        urls = administration_urls(CommonSettings())
        count = partitions or -(-3 // len(urls)) * len(urls)
        revisions = migrate_shards(urls, count)
    rows = [{"shard": shard, "revision": revision} for shard, revision in enumerate(revisions)]
    if json:
        print_json(rows)
    else:
        print_rows(rows, "")
