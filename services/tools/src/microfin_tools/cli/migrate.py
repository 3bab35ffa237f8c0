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
    archives: Annotated[
        bool,
        typer.Option(
            "--archives",
            help="Make the empty databases of MICROFIN_ARCHIVES_DIRECT the archives of the shards, "
            "or bring them to the newest schema. The shards come first, by a call without this.",
        ),
    ] = False,
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
      microfin migrate --archives
    """
    with reported():
        settings = CommonSettings()
        urls = administration_urls(settings)
        if archives:
            rows = _migrate_archives(urls, settings.direct_archive_urls)
        else:
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
    return _rows(revisions)


def _migrate_archives(urls: list[str], archive_urls: list[str]) -> list[dict[str, object]]:
    from sqlalchemy.exc import DBAPIError  # noqa: PLC0415

    from microfin_tools.migrations.run import WrongEncoding, migrate_archives  # noqa: PLC0415

    try:
        revisions = migrate_archives(urls, archive_urls)
    except WrongEncoding as error:
        raise CouldNot(str(error)) from error
    except DBAPIError as error:
        raise CouldNot(database_failure(error.orig or error)) from error
    return _rows(revisions)


def _rows(revisions: list[str]) -> list[dict[str, object]]:
    return [{"shard": shard, "revision": revision} for shard, revision in enumerate(revisions)]
