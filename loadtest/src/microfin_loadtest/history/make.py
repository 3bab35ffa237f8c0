"""Making a history in the running platform's shards."""

import asyncio
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from itertools import islice
from typing import Any, Final
from uuid import uuid4

import msgspec

from microfin.ledger.routing import Routing, shard_of_partition
from microfin.ledger.wire import Command
from microfin.postgres.connections import connect
from microfin_loadtest.errors import LoadImpossible
from microfin_loadtest.history.decided import Past
from microfin_loadtest.history.stored import Shard
from microfin_loadtest.history.traffic import Plan, requests

_PIECE: Final = 50_000
"""Operations that are decided and copied at once."""

_DAY: Final = 24 * 60 * 60 * 1000
_UNTIL_NOW: Final = 60_000
"""Milliseconds between the end of the history and now."""

_OFFSETS_AN_OPERATION: Final = 2
"""A transfer across partitions takes two places in the log."""

_OWNERS: Final = """
INSERT INTO users (id, email, name, password_hash) VALUES ($1, $2, 'Owner in the past', '!')
"""


class HistoryRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What to make: so many `operations` on so many `accounts` of `owners`, in the last `days`."""

    operations: int
    accounts: int
    owners: int
    days: int


async def make_history(
    urls: Sequence[str], request: HistoryRequest, say: Callable[[str], None]
) -> dict[str, Any]:
    """Write the history into the shards of `urls`, and return what was made.

    The owners cannot sign in: they have no password. Raises LoadImpossible where the shards are
    not at one routing, or a partition has no row yet.
    """
    began = time.monotonic()
    plan = await _plan(urls[0], request)
    async with AsyncExitStack() as stack:
        shards = [await stack.enter_async_context(Shard(url)) for url in urls]
        routing = await _routing(urls)
        past = Past(routing, await _offsets(shards, routing.partition_count, request.operations))
        commands = requests(plan)
        made = 0
        while piece := list(islice(commands, _PIECE)):
            await _write_piece(plan, past, shards, piece, made)
            made += len(piece)
            _report(say, made, request.operations, time.monotonic() - began)
        for number, shard in enumerate(shards):
            own = range(number, routing.partition_count, len(shards))
            await shard.write_end(past, own)
        say("committing, then VACUUM")
    return {
        "operations": made,
        "accounts": len(past.opened),
        "mark": plan.mark,
        "seconds": round(time.monotonic() - began, 1),
    }


async def _plan(url: str, request: HistoryRequest) -> Plan:
    owners = [uuid4() for _ in range(request.owners)]
    connection = await connect(url)
    try:
        rows = [(owner, f"past-{owner.hex}@example.com") for owner in owners]
        await connection.executemany(_OWNERS, rows)
    finally:
        await connection.close()
    ends = int(time.time() * 1000) - _UNTIL_NOW
    return Plan(
        operations=request.operations,
        accounts=request.accounts,
        owners=[owner.hex for owner in owners],
        begins=ends - request.days * _DAY,
        ends=ends,
        mark=secrets.token_hex(8),
    )


async def _routing(urls: Sequence[str]) -> Routing:
    found = set()
    for url in urls:
        connection = await connect(url)
        try:
            row = await connection.fetchrow("SELECT generation, partition_count FROM routing")
        finally:
            await connection.close()
        found.add(tuple(row))
    if len(found) != 1:
        raise LoadImpossible("The shards are not at one routing: wait until the growth is over.")
    return Routing(*found.pop())


async def _offsets(shards: Sequence[Shard], partitions: int, operations: int) -> dict[int, int]:
    """Return where each partition's history begins: so far below what is there that it fits."""
    found = await asyncio.gather(*(shard.first_offsets() for shard in shards))
    if sum(map(len, found)) < partitions:
        raise LoadImpossible("A partition has had no worker yet: wait until the platform is ready.")
    return {
        partition: first - _OFFSETS_AN_OPERATION * operations
        for first_offsets in found
        for partition, first in first_offsets.items()
    }


async def _write_piece(
    plan: Plan, past: Past, shards: Sequence[Shard], piece: Sequence[Command], first: int
) -> None:
    decided = past.decide(_timed(plan, piece, first))
    for number, shard in enumerate(shards):
        own = [it for it in decided if shard_of_partition(it.partition, len(shards)) == number]
        await shard.write(own)


def _timed(plan: Plan, piece: Sequence[Command], first: int) -> Iterator[tuple[Command, int]]:
    for number, command in enumerate(piece, first):
        yield command, plan.time_of(number)


def _report(say: Callable[[str], None], made: int, wanted: int, seconds: float) -> None:
    left = seconds / made * (wanted - made)
    say(f"{made:,} of {wanted:,} operations; {made / seconds:,.0f}/s, {left:.0f} s left")
