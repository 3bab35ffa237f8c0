"""The shards' databases as commands use them."""

import contextlib
from collections.abc import AsyncIterator, Sequence

from microfin.ledger.routing import partition_of, shard_of_account
from microfin.postgres import queries
from microfin.postgres.archive_reading import Archive, archives_of
from microfin.postgres.connections import Pool, connect_pool, connect_shards
from microfin.process.settings import CommonSettings
from microfin_tools.audit.shard import open_archives, open_shards
from microfin_tools.cli.failures import CouldNot


def reading_urls(settings: CommonSettings) -> list[str]:
    """Return the URLs to read from, shard 0 first."""
    if settings.databases:
        return settings.database_urls
    if settings.databases_direct:
        return settings.direct_database_urls
    raise CouldNot(
        "MICROFIN_DATABASES is not set: give the PostgreSQL URLs of all shards, separated by "
        "spaces. On one machine, `source .local/environment` sets it."
    )


def administration_urls(settings: CommonSettings) -> list[str]:
    """Return the URLs for changes, past the pooler, shard 0 first."""
    if settings.databases_direct:
        return settings.direct_database_urls
    raise CouldNot(
        "MICROFIN_DATABASES_DIRECT is not set: this needs the PostgreSQL URLs of all shards past "
        "the pooler, with the owner's role, separated by spaces. On one machine, "
        "`source .local/environment` sets it."
    )


def archive_reading_urls(settings: CommonSettings) -> list[str]:
    """Return the URLs to read the archives, those past the pooler if no others are set."""
    return settings.archive_urls or settings.archives_direct.split()


@contextlib.asynccontextmanager
async def reading_shards(settings: CommonSettings) -> AsyncIterator[list[Pool]]:
    """Give pools for reading, shard 0 first; past the pooler only if no pooler is set."""
    async with connected(reading_urls(settings), settings) as pools:
        yield pools


@contextlib.asynccontextmanager
async def reading_archives(
    settings: CommonSettings, pools: Sequence[Pool]
) -> AsyncIterator[list[Archive]]:
    """Give the archives of the shards of `pools`, which connect when they are asked."""
    archives = archives_of(archive_reading_urls(settings), len(pools), settings)
    try:
        for archive in archives:
            await archive.start()
        yield archives
    finally:
        for archive in archives:
            archive.terminate()


@contextlib.asynccontextmanager
async def administered_shards(settings: CommonSettings) -> AsyncIterator[list[Pool]]:
    """Give pools with the owner's role (MICROFIN_DATABASES_DIRECT), shard 0 first."""
    async with connected(administration_urls(settings), settings) as pools:
        yield pools


@contextlib.asynccontextmanager
async def connected(urls: list[str], settings: CommonSettings) -> AsyncIterator[list[Pool]]:
    """Give pools to the shards at `urls`."""
    pools = await connect_shards(urls, settings)
    try:
        yield pools
    finally:
        for pool in pools:
            pool.terminate()


@contextlib.asynccontextmanager
async def archives_to_read(settings: CommonSettings) -> AsyncIterator[list[Pool]]:
    """Give pools to the shards' archives, shard 0 first; none where no setting names any.

    Raises `WrongArchive` if a database is not the archive that belongs there.
    """
    urls = archive_reading_urls(settings)
    if not urls:
        yield []
        return
    shard_urls = settings.databases_direct.split() or settings.databases.split()
    async with open_shards(shard_urls) as shards, open_archives(urls, shards):
        pass
    pools = [await connect_pool(url, settings) for url in urls]
    try:
        yield pools
    finally:
        for pool in pools:
            pool.terminate()


async def partition_under_routing(pools: Sequence[Pool], account: str) -> tuple[int, int]:
    """Return the current partition of `account`, and the generation of its routing."""
    row = await queries.routing(pools[shard_of_account(account, len(pools))])
    return partition_of(account, row.routing.partition_count), row.routing.generation
