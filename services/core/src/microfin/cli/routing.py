"""`microfin routing`."""

import typer

from microfin import reading
from microfin.cli.failures import run
from microfin.cli.output import Json, print_json, print_rows, print_text, time_text
from microfin.cli.shards import reading_shards
from microfin.database import Pool, read_snapshot
from microfin.ledger_rows import MILLISECONDS
from microfin.settings import CommonSettings

routing = typer.Typer(
    no_args_is_help=True, help="How accounts are spread over partitions, and who works on them."
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

    `epoch` counts the claims of a partition, `next_offset` is its place in the log, `touched_at`
    when its worker last wrote. A growth under way shows as the shard's intended partitions.

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


async def _read() -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    async with reading_shards(CommonSettings()) as pools:
        shards = [await _shard(pool) for pool in pools]
        partitions = [row for shard, pool in enumerate(pools) for row in await _rows(shard, pool)]
    return shards, sorted(partitions, key=lambda row: int(str(row["partition"])))


async def _shard(pool: Pool) -> dict[str, object]:
    row = await reading.routing(pool)
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
