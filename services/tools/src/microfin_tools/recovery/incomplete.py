"""Finding the transfers whose legs do not add up, over all shards."""

import asyncio
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Final

from microfin.ledger.operation import Outcome
from microfin.postgres import queries
from microfin.postgres.connections import Pool, read_snapshot
from microfin_tools.audit.legs import incomplete_transfers
from microfin_tools.audit.scope import EVERYTHING
from microfin_tools.audit.second_look import IN_OUTBOX, IN_QUARANTINE
from microfin_tools.audit.shard import open_shards, snapshots
from microfin_tools.recovery.legs import Unsettled, unsettled

_AT_A_TIME: Final = 1_000


async def incomplete_operations(urls: Sequence[str]) -> list[str]:
    """Return the operations whose legs are incomplete in one snapshot of each shard."""
    async with open_shards(urls) as shards, snapshots(shards):
        scopes = [EVERYTHING] * len(shards)
        return [operation async for operation in incomplete_transfers(shards, scopes)]


async def stuck_transfers(
    pools: Sequence[Pool], operations: Iterable[str]
) -> dict[str, tuple[int, Unsettled]]:
    """Return those of `operations` that are incomplete and have no command under way.

    With each comes the number of its legs that have an outcome. A command is under way in an
    outbox or in quarantine; this does not look for commands in the log.
    """
    stuck: dict[str, tuple[int, Unsettled]] = {}
    remaining = iter(operations)
    while ids := list(islice(remaining, _AT_A_TIME)):
        # First the commands under way: one sent meanwhile is in the log, or has an outcome.
        moving = set().union(*await asyncio.gather(*(_under_way(pool, ids) for pool in pools)))
        for operation, legs in (await _legs(pools, ids)).items():
            found = unsettled(legs)
            if found is not None and operation not in moving:
                stuck[operation] = (len(legs), found)
    return stuck


async def _under_way(pool: Pool, ids: Sequence[str]) -> set[str]:
    async with read_snapshot(pool) as connection:
        rows = await connection.fetch(IN_OUTBOX, ids) + await connection.fetch(IN_QUARANTINE, ids)
    return {row[0] for row in rows}


async def _legs(pools: Sequence[Pool], ids: Sequence[str]) -> dict[str, list[Outcome]]:
    read = await asyncio.gather(*(queries.legs(pool, ids) for pool in pools))
    legs: dict[str, list[Outcome]] = {}
    for outcome in (it for outcomes in read for it in outcomes):
        legs.setdefault(outcome.operation, []).append(outcome)
    return legs
