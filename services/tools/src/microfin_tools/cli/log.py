"""`microfin log`: the records that the commands topic keeps."""

import asyncio
from typing import Annotated, Any, Final

import msgspec
import typer

from microfin.postgres.connections import read_snapshot
from microfin.process.settings import CommonSettings
from microfin_tools.cli.failures import NO, run
from microfin_tools.cli.output import Json, print_json, print_rows, print_text
from microfin_tools.cli.shards import reading_shards
from microfin_tools.cli.topic import Topic, open_topic

log = typer.Typer(no_args_is_help=True, help="The records that the commands topic keeps.")

KEPT_HOURS: Final = 14 * 24  # as the chart's CronJob: the window of restores is one number
_HOUR: Final = 3_600_000  # milliseconds

_NEXT_OFFSETS: Final = "SELECT partition, next_offset FROM partitions"
_NOW: Final = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint"


class Bounds(msgspec.Struct, frozen=True):
    """The offsets of one partition of the topic.

    It keeps offsets `start` to `end` (the one after the last record). `next_offset` is the first
    that is not decided, None where the partition was never claimed. `first_young` is the first
    record that is too young to be trimmed, None where there is none.
    """

    start: int
    end: int
    next_offset: int | None
    first_young: int | None


class Trim(msgspec.Struct, frozen=True):
    """How far one partition is trimmed: records below `keep_from` go. A `fault` forbids it."""

    keep_from: int
    fault: str = ""


def plan(bounds: Bounds, keep_records: int) -> Trim:
    """Return which records of one partition may go.

    The record before `next_offset` always stays: a worker recognises its log by it. The last
    `keep_records` before `next_offset` stay too, and all young records.
    """
    if bounds.next_offset is None:
        return Trim(bounds.start)
    if not bounds.start <= bounds.next_offset <= bounds.end:
        return Trim(
            bounds.start,
            "the database's next_offset is not in the log: one of both was restored or replaced",
        )
    kept = max(1, keep_records)
    young = bounds.end if bounds.first_young is None else bounds.first_young
    return Trim(max(bounds.start, min(bounds.next_offset - kept, young)))


@log.command()
def trim(
    keep_hours: Annotated[
        int, typer.Option(min=0, help="Records younger than this stay, in hours.")
    ] = KEPT_HOURS,
    keep_records: Annotated[
        int,
        typer.Option(
            min=0, help="This many decided records stay in each partition, however old they are."
        ),
    ] = 0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show which records would go.")
    ] = False,
    json: Json = False,
) -> None:
    """Delete commands that were decided and that no recovery needs any more.

    The topic keeps everything until it is trimmed. Only records below a partition's committed
    `next_offset` ever go, and never the last of them. The records that stay are the window for
    recovery: a shard restored from a backup decides again from its own, older `next_offset`, so
    keep at least the age of the oldest backup that you would restore.

    Needs MICROFIN_KAFKA and MICROFIN_DATABASES.

    \b
    Examples:
      microfin log trim --dry-run
      microfin log trim --keep-hours 336 --keep-records 100000
    """
    rows = run(_trim(keep_hours, keep_records, dry_run=dry_run))
    if json:
        print_json({"dry_run": dry_run, "partitions": rows})
    else:
        print_rows(rows, "The topic has no partitions.")
        total = sum(row["records"] for row in rows)
        print_text(f"\n{total} records {'would go' if dry_run else 'are gone'}.")
    if any(row["fault"] for row in rows):
        raise typer.Exit(NO)


async def _trim(keep_hours: int, keep_records: int, *, dry_run: bool) -> list[dict[str, Any]]:
    settings = CommonSettings()
    decided, now = await _decided(settings)
    async with open_topic(settings) as topic:
        bounds = await _bounds(topic, decided, now - keep_hours * _HOUR)
        plans = {partition: plan(found, keep_records) for partition, found in bounds.items()}
        goals = {
            partition: trim.keep_from
            for partition, trim in plans.items()
            if trim.keep_from > bounds[partition].start
        }
        if goals and not dry_run:
            await topic.delete_below(goals)
    return [
        {
            "partition": partition,
            "start": found.start,
            "end": found.end,
            "next_offset": found.next_offset,
            "keep_from": plans[partition].keep_from,
            "records": plans[partition].keep_from - found.start,
            "fault": plans[partition].fault,
        }
        for partition, found in bounds.items()
    ]


async def _decided(settings: CommonSettings) -> tuple[dict[int, int], int]:
    """Return each partition's `next_offset`, and the time of the database's clock."""
    decided: dict[int, int] = {}
    async with reading_shards(settings) as pools:
        for pool in pools:
            async with read_snapshot(pool) as connection:
                rows = await connection.fetch(_NEXT_OFFSETS)
                now: int = await connection.fetchval(_NOW)
            decided.update((row["partition"], row["next_offset"]) for row in rows)
    return decided, now


async def _bounds(topic: Topic, decided: dict[int, int], young: int) -> dict[int, Bounds]:
    starts, ends, first_young = await asyncio.gather(
        topic.starts(), topic.ends(), topic.offsets_at(max(0, young))
    )
    return {
        partition: Bounds(
            starts[partition], ends[partition], decided.get(partition), first_young[partition]
        )
        for partition in sorted(starts)
    }
