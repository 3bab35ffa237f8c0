"""`microfin quarantine`: records that no worker could decide."""

from collections.abc import Sequence
from typing import Annotated, Any, Final

import msgspec
import typer

from microfin.kafka.producer import CommandProducer
from microfin.ledger import wire
from microfin.ledger.columns import nearest_moment
from microfin.ledger.routing import shard_of_account
from microfin.ledger.wire import Command
from microfin.postgres import queries
from microfin.postgres.connections import Pool
from microfin.postgres.rows import MILLISECONDS
from microfin.process.settings import CommonSettings
from microfin_tools.cli.failures import NO, Refused, run
from microfin_tools.cli.output import Json, print_json, print_rows, time_text
from microfin_tools.cli.sending import connected_producer
from microfin_tools.cli.shards import (
    administered_shards,
    archives_to_read,
    partition_under_routing,
    reading_shards,
)

quarantine = typer.Typer(no_args_is_help=True, help="Records that no worker could decide.")

_ROWS: Final = f"""
SELECT partition, log_offset AS "offset", reason, key, value,
    {MILLISECONDS.format(column="appended_at")} AS appended_at,
    {MILLISECONDS.format(column="replayed_at")} AS replayed_at
FROM quarantine
"""  # noqa: S608 - the columns are ours


_ARCHIVED_TO: Final = f"""
SELECT max({MILLISECONDS.format(column="last_at")}) FROM archived_volumes
"""  # noqa: S608 - the column is ours

_SAME_TIME: Final = 24 * 60 * 60 * 1000
"""Milliseconds: of two records of one leg, the second came within this time."""


class QuarantinedRecord(msgspec.Struct, frozen=True):
    """A record in quarantine. Times are milliseconds since the Unix epoch."""

    shard: int
    partition: int
    offset: int
    reason: str
    key: bytes | None
    value: bytes | None
    appended_at: int
    replayed_at: int | None


@quarantine.command("list")
def list_records(
    everything: Annotated[
        bool, typer.Option("--all", help="Also records that were replayed.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, help="The most rows, oldest first.")] = 100,
    json: Json = False,
) -> None:
    """List the records in quarantine, oldest first; with --json also their bytes as text.

    \b
    Examples:
      microfin quarantine list
      microfin quarantine list --json | jq -r '.[].value'
    """
    records = run(_list(limit, everything=everything))
    rows = [_row(record) for record in records]
    if json:
        values = [record.value for record in records]
        print_json(
            [
                {**row, "value": None if value is None else value.decode(errors="backslashreplace")}
                for row, value in zip(rows, values, strict=True)
            ]
        )
    else:
        print_rows(rows, "There is nothing in quarantine.")


@quarantine.command()
def replay(
    partition: Annotated[int | None, typer.Argument(min=0, help="The record's partition.")] = None,
    offset: Annotated[int | None, typer.Argument(min=0, help="The record's offset.")] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="All records that were not replayed yet.")
    ] = False,
    json: Json = False,
) -> None:
    """Append a record again, with its operation's id, after its obstacle was removed.

    That is for credits and refunds: a refund whose account was missing, or a record that this
    release can read and the previous one could not. Replaying twice does no harm: a leg takes
    effect once. It refuses records that still cannot be read, and requests that were answered
    `rejected: quarantined`: for those the client sends a new request, with a new key.

    Needs MICROFIN_DATABASES_DIRECT and MICROFIN_KAFKA. The next audit shows whether the transfer
    has arrived.

    \b
    Examples:
      microfin quarantine replay 3 88017
      microfin quarantine replay --all
    """
    if everything == (partition is not None) or (partition is None) != (offset is None):
        raise typer.BadParameter("Give PARTITION and OFFSET, or --all.")
    results = run(_replay(partition, offset))
    if json:
        print_json(results)
    else:
        print_rows(results, "There is nothing to replay.")
    if any(row["refused"] for row in results):
        raise typer.Exit(NO)


async def _list(limit: int, *, everything: bool) -> list[QuarantinedRecord]:
    condition = "" if everything else "WHERE replayed_at IS NULL "
    async with reading_shards(CommonSettings()) as pools:
        records = await _select(pools, f"{condition}ORDER BY appended_at LIMIT $1", limit)
    return sorted(records, key=lambda record: record.appended_at)[:limit]


async def _select(
    pools: Sequence[Pool], condition: str, *arguments: object
) -> list[QuarantinedRecord]:
    records = []
    for shard, pool in enumerate(pools):
        async with pool.acquire() as connection, connection.transaction():
            rows = await connection.fetch(_ROWS + condition, *arguments)
        records += [QuarantinedRecord(shard=shard, **dict(row)) for row in rows]
    return records


def _row(record: QuarantinedRecord) -> dict[str, Any]:
    command, _ = _read(record)
    return {
        "shard": record.shard,
        "partition": record.partition,
        "offset": record.offset,
        "appended_at": time_text(nearest_moment(record.appended_at)),
        "operation": command.operation if command else None,
        "leg": command.leg if command else None,
        "key": None if record.key is None else _printable(record.key),
        "bytes": len(record.value or b""),
        "replayed_at": None if record.replayed_at is None else time_text(record.replayed_at),
        "reason": _printable(record.reason.encode()),
    }


def _printable(unknown: bytes) -> str:
    """Return bytes of unknown origin as text without a terminal's control characters."""
    text = unknown.decode(errors="backslashreplace")
    plain = (it if it.isprintable() else it.encode("unicode_escape").decode() for it in text)
    return "".join(plain)


def _read(record: QuarantinedRecord) -> tuple[Command | None, str]:
    """Return the command in the record, or None and the reason."""
    try:
        return wire.decode(record.key, record.value), ""
    except wire.Undecodable as error:
        return None, f"it still cannot be read: {error.reason}"
    except wire.NewerVersion as error:
        return None, f"{error} Use a newer `microfin`."


async def _replay(partition: int | None, offset: int | None) -> list[dict[str, Any]]:
    settings = CommonSettings()
    async with administered_shards(settings) as pools, archives_to_read(settings) as archives:
        if partition is None:
            records = await _select(pools, "WHERE replayed_at IS NULL ORDER BY appended_at")
        else:
            condition = "WHERE partition = $1 AND log_offset = $2"
            records = await _select(pools, condition, partition, offset)
            if not records:
                raise Refused(f"There is no record of partition {partition}, offset {offset}.")
        async with connected_producer(settings) as producer:
            return [await _replay_one(pools, archives, producer, record) for record in records]


async def _replay_one(
    pools: Sequence[Pool],
    archives: Sequence[Pool],
    producer: CommandProducer,
    record: QuarantinedRecord,
) -> dict[str, Any]:
    result: dict[str, Any] = {
        "partition": record.partition,
        "offset": record.offset,
        "operation": None,
        "new_partition": None,
        "new_offset": None,
        "refused": "",
    }
    command, refused = _read(record)
    if command is not None:
        result["operation"] = command.operation
        refused = await _why_not(pools, archives, record, command)
    if command is None or refused:
        return {**result, "refused": refused}
    partition, generation = await partition_under_routing(pools, command.account)
    appended = await producer.send(
        partition, msgspec.structs.replace(command, generation=generation)
    )
    async with pools[record.shard].acquire() as connection, connection.transaction():
        await connection.execute(
            "UPDATE quarantine SET replayed_at = clock_timestamp()"
            " WHERE partition = $1 AND log_offset = $2",
            record.partition,
            record.offset,
        )
    return {**result, "new_partition": appended.partition, "new_offset": appended.offset}


async def _why_not(
    pools: Sequence[Pool], archives: Sequence[Pool], record: QuarantinedRecord, command: Command
) -> str:
    """Return why replaying would have no effect, or might have a second one; empty otherwise."""
    if record.replayed_at is not None:
        return f"it was replayed at {time_text(record.replayed_at)}"
    shard = shard_of_account(command.account, len(pools))
    places = [pools[shard]]
    async with pools[shard].acquire() as connection, connection.transaction():
        archived_to: int | None = await connection.fetchval(_ARCHIVED_TO)
    if archived_to is not None and record.appended_at <= archived_to + _SAME_TIME:
        if not archives:
            return (
                "its leg may have been decided in a volume that is in the archive, and would move "
                "money again: set MICROFIN_ARCHIVES to the URLs of the shards' archives"
            )
        places.append(archives[shard])
    for place in places:
        for outcome in await queries.legs(place, [command.operation]):
            if outcome.leg == command.leg:
                return (
                    f"its {outcome.leg} was decided ({outcome.reason or outcome.status}): a repeat "
                    "gets the same answer"
                )
    return ""
