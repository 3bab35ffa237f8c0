"""`microfin outbox`: commands that partitions send and that are not in the log yet."""

from collections.abc import Sequence
from typing import Annotated, Any, Final

import msgspec
import typer

from microfin.ledger.wire import Command
from microfin.postgres.connections import Pool, read_snapshot
from microfin.postgres.rows import MILLISECONDS
from microfin.process.settings import CommonSettings
from microfin_tools.cli.failures import run
from microfin_tools.cli.output import Json, print_json, print_rows, print_text, time_text
from microfin_tools.cli.sending import connected_producer
from microfin_tools.cli.shards import partition_under_routing, reading_shards

outbox = typer.Typer(
    no_args_is_help=True, help="Credits, refunds and forwarded commands on their way to the log."
)

_ROWS: Final = f"""
SELECT partition, log_offset AS "offset", step, command,
    {MILLISECONDS.format(column="created_at")} AS created_at,
    extract(epoch FROM clock_timestamp() - created_at)::bigint AS age
FROM outbox
WHERE ($1::integer IS NULL OR partition = $1)
    AND created_at <= clock_timestamp() - $2 * interval '1 second'
ORDER BY partition, log_offset, step LIMIT $3
"""  # noqa: S608 - the columns are ours

_MOST: Final = 2**62

_decode = msgspec.json.Decoder(Command).decode

Partition = Annotated[
    int | None, typer.Option(min=0, help="Only rows of this partition. Default: all.")
]


class Waiting(msgspec.Struct, frozen=True):
    """A row of an outbox. `age` is in seconds."""

    shard: int
    partition: int
    offset: int
    step: int
    command: bytes
    created_at: int
    age: int


@outbox.command("list")
def list_rows(
    partition: Partition = None,
    limit: Annotated[int, typer.Option(min=1, help="The most rows of each shard.")] = 100,
    json: Json = False,
) -> None:
    """List the commands that partitions have to send and the broker has not acknowledged.

    A row lives for milliseconds. If a row is minutes old, its worker is down or cannot reach Kafka.

    \b
    Example:
      microfin outbox list --partition 3
    """
    rows = [_row(waiting) for waiting in run(_list(partition, limit))]
    if json:
        print_json(rows)
    else:
        print_rows(rows, "All outboxes are empty.")


@outbox.command()
def resend(
    partition: Partition = None,
    older_than: Annotated[
        int, typer.Option(min=0, help="Only rows of at least this age, in seconds.")
    ] = 10,
    json: Json = False,
) -> None:
    """Send rows that are stuck, in place of a worker that is down.

    A worker sends its outbox, again after every restart: start the worker if you can. The rows stay
    until the worker has sent them once more; a repeat has no effect.

    Needs MICROFIN_DATABASES and MICROFIN_KAFKA.

    \b
    Example:
      microfin outbox resend --partition 3
    """
    sent = run(_resend(partition, older_than))
    if json:
        print_json(sent)
        return
    print_rows(sent, f"There are no rows of at least {older_than} s.")
    if sent:
        print_text("\nThe rows stay until their worker has sent them too.")


def _row(waiting: Waiting) -> dict[str, Any]:
    command = _decode(waiting.command)
    return {
        "shard": waiting.shard,
        "partition": waiting.partition,
        "offset": waiting.offset,
        "step": waiting.step,
        "operation": command.operation,
        "kind": command.kind,
        "leg": command.leg,
        "account": command.account,
        "created_at": time_text(waiting.created_at),
        "age_seconds": waiting.age,
    }


async def _list(partition: int | None, limit: int) -> list[Waiting]:
    async with reading_shards(CommonSettings()) as pools:
        return await _select(pools, partition, 0, limit)


async def _select(
    pools: Sequence[Pool], partition: int | None, older_than: int, limit: int
) -> list[Waiting]:
    found = []
    for shard, pool in enumerate(pools):
        async with read_snapshot(pool) as connection:
            rows = await connection.fetch(_ROWS, partition, older_than, limit)
        found += [Waiting(shard=shard, **dict(row)) for row in rows]
    return found


async def _resend(partition: int | None, older_than: int) -> list[dict[str, Any]]:
    settings = CommonSettings()
    async with reading_shards(settings) as pools:
        found = await _select(pools, partition, older_than, _MOST)
        if not found:
            return []
        async with connected_producer(settings) as producer:
            sent = []
            for waiting in found:
                command = _decode(waiting.command)
                place, generation = await partition_under_routing(pools, command.account)
                appended = await producer.send(
                    place, msgspec.structs.replace(command, generation=generation)
                )
                sent.append(
                    {
                        **_row(waiting),
                        "sent_to_partition": appended.partition,
                        "sent_to_offset": appended.offset,
                    }
                )
    return sent
