"""`microfin routing`."""

from typing import Annotated

import typer

from microfin.postgres import queries
from microfin.postgres.connections import Pool, read_snapshot
from microfin.postgres.rows import MILLISECONDS
from microfin.process.clock import SystemClock
from microfin.process.settings import CommonSettings
from microfin_tools.cli.failures import CouldNot, Refused, run
from microfin_tools.cli.output import Json, print_json, print_rows, print_text, time_text
from microfin_tools.cli.sending import connected_producer
from microfin_tools.cli.shards import connected, reading_shards, reading_urls
from microfin_tools.cli.topic import open_topic
from microfin_tools.growth import (
    Growth,
    GrowthNotFinished,
    GrowthRefused,
    MarkedLog,
    PostgresRouting,
)

routing = typer.Typer(
    no_args_is_help=True,
    help="How accounts are spread over partitions, and how far each partition is.",
)

_PARTITIONS = f"""
SELECT partition, epoch, next_offset, generation, partition_count,
    {MILLISECONDS.format(column="touched_at")} AS touched_at,
    (SELECT count(*) FROM outbox WHERE outbox.partition = partitions.partition) AS outbox
FROM partitions ORDER BY partition
"""  # noqa: S608 - the columns are ours


@routing.command()
def show(json: Json = False) -> None:
    """Show each shard's routing, and each partition's row.

    `epoch` counts the claims of a partition, `next_offset` is its place in the log, `touched_at` is
    the time of its worker's last write. The intended partitions of a shard are a growth under way.

    \b
    Examples:
      microfin routing show
      microfin routing show --json | jq '.partitions[].next_offset'
    """
    shards, partitions = run(_read())
    if json:
        print_json({"shards": shards, "partitions": partitions})
        return
    print_rows(shards, "There are no shards.")
    print_text("")
    print_rows(partitions, "No partition has been claimed yet: no worker has run.")


@routing.command()
def grow(
    partitions: Annotated[
        int, typer.Option(help="How many partitions accounts should be spread over.", min=1)
    ],
    patience: Annotated[
        float, typer.Option(help="Seconds to keep trying while the workers are behind.", min=1)
    ] = 300.0,
) -> None:
    """Spread accounts over more partitions while money moves.

    The topic must have the partitions, and each must have its worker. Commands for accounts that
    move wait for about a second; no other command waits, and none is refused or reordered. You may
    stop it at any moment: if you run it again, it completes the unfinished growth. On one machine,
    `make grow WORKERS=12` does all of it.

    \b
    Examples:
      microfin routing grow --partitions 12
      microfin routing grow --partitions 12 --patience 30
    """
    run(_grow(partitions, patience))


async def _grow(partitions: int, patience: float) -> None:
    settings = CommonSettings()
    urls = settings.direct_database_urls if settings.databases_direct else reading_urls(settings)
    async with (
        connected(urls, settings) as pools,
        open_topic(settings) as topic,
        connected_producer(settings) as producer,
    ):
        shards = [PostgresRouting(pool, shard) for shard, pool in enumerate(pools)]
        log = MarkedLog(topic.ends, producer)
        growth = Growth(shards, log, SystemClock(), print_text, patience)
        try:
            await growth.to(partitions)
        except GrowthRefused as error:
            raise CouldNot(str(error)) from error
        except GrowthNotFinished as error:
            raise Refused(str(error)) from error


async def _read() -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    async with reading_shards(CommonSettings()) as pools:
        shards = [await _shard(pool) for pool in pools]
        partitions = [row for shard, pool in enumerate(pools) for row in await _rows(shard, pool)]
    return shards, sorted(partitions, key=lambda row: int(str(row["partition"])))


async def _shard(pool: Pool) -> dict[str, object]:
    row = await queries.routing(pool)
    return {
        "shard": row.shard,
        "generation": row.routing.generation,
        "partitions": row.routing.partition_count,
        "intended_generation": row.intended.generation if row.intended else None,
        "intended_partitions": row.intended.partition_count if row.intended else None,
    }


async def _rows(shard: int, pool: Pool) -> list[dict[str, object]]:
    async with read_snapshot(pool) as connection:
        rows = await connection.fetch(_PARTITIONS)
    return [
        {"shard": shard, **dict(row), "touched_at": time_text(row["touched_at"])} for row in rows
    ]
