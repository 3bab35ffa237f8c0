"""`microfin migrate`."""

from typing import Annotated, Final

import typer

from microfin.process.settings import CommonSettings
from microfin_tools.cli.failures import CouldNot, database_failure, reported
from microfin_tools.cli.output import Json, print_json, print_rows
from microfin_tools.cli.shards import administration_urls

_DEFAULT: Final = 3
"""How many partitions a new ledger starts with, rounded up to a multiple of its shards."""


def migrate(
    partitions: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="How many partitions a new ledger starts with, a multiple of the shards. An "
            "existing ledger keeps its number. Default: 3, or the next multiple.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Bring the databases of all shards to the newest schema.

    Creates missing roles and tables and, in a new ledger, routing generation 1. Needs
    MICROFIN_DATABASES_DIRECT: past the pooler, with the owner's role. Safe to run twice, even at
    the same time, and while the platform runs.

    \b
    Examples:
      microfin migrate --partitions 6
      MICROFIN_DATABASES_DIRECT_FILE=/run/secrets/direct microfin migrate
    """
    with reported():
        urls = administration_urls(CommonSettings())
        rows = _migrate(urls, partitions or -(-_DEFAULT // len(urls)) * len(urls))
    if json:
        print_json(rows)
    else:
        print_rows(rows, "")


def _migrate(urls: list[str], partitions: int) -> list[dict[str, object]]:
    # SQLAlchemy and Alembic take longer to load than most commands take to run.
    from sqlalchemy.exc import DBAPIError  # noqa: PLC0415

    from microfin_tools.migrations.run import WrongEncoding, migrate  # noqa: PLC0415

    try:
        revisions = migrate(urls, partitions)
    except WrongEncoding as error:
        raise CouldNot(str(error)) from error
    except DBAPIError as error:
        raise CouldNot(database_failure(error.orig or error)) from error
    return [{"shard": shard, "revision": revision} for shard, revision in enumerate(revisions)]
