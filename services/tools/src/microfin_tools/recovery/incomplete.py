"""Finding the transfers whose legs do not add up, over all shards."""

import asyncio
import contextlib
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Final

from microfin.ledger.operation import Outcome
from microfin.postgres import queries
from microfin.postgres.connections import Pool, read_snapshot
from microfin_tools.audit.impossible import AuditImpossible
from microfin_tools.audit.legs import incomplete_transfers
from microfin_tools.audit.scope import EVERYTHING
from microfin_tools.audit.second_look import IN_OUTBOX, IN_QUARANTINE
from microfin_tools.audit.shard import open_archives, open_shards, snapshots
from microfin_tools.recovery.legs import Unsettled, unsettled

_AT_A_TIME: Final = 1_000


async def incomplete_operations(urls: Sequence[str], archive_urls: Sequence[str]) -> list[str]:
    """Return the operations whose legs are incomplete in one snapshot of each shard.

    Raises `AuditImpossible` if old volumes are in the archive, and nothing says where that is: a
    leg that is there would look lost, and its command would move money again.
    """
    async with contextlib.AsyncExitStack() as stack:
        shards = await stack.enter_async_context(open_shards(urls))
        await stack.enter_async_context(snapshots(shards))
        for shard in shards:
            await shard.look_for_archive()
        databases = list(shards)
        if any(shard.has_archive for shard in shards):
            if not archive_urls:
                raise AuditImpossible(
                    "Old volumes of this ledger are in its archive, which may hold legs that seem "
                    "to be lost: set MICROFIN_ARCHIVES to the URLs of the shards' archives."
                )
            archives = await stack.enter_async_context(open_archives(archive_urls, shards))
            await stack.enter_async_context(snapshots(archives))
            databases += archives
        scopes = [EVERYTHING] * len(databases)
        return [operation async for operation in incomplete_transfers(databases, scopes)]


async def stuck_transfers(
    pools: Sequence[Pool], operations: Iterable[str], archives: Sequence[Pool]
) -> dict[str, tuple[int, Unsettled]]:
    """Return those of `operations` that are incomplete and have no command under way.

    `pools` are of all shards, `archives` of their archives, where there are any.

    With each comes the number of its legs that have an outcome. A command is under way in an
    outbox or in quarantine; this does not look for commands in the log.
    """
    stuck: dict[str, tuple[int, Unsettled]] = {}
    remaining = iter(operations)
    while ids := list(islice(remaining, _AT_A_TIME)):
        # First the commands under way: one sent meanwhile is in the log, or has an outcome.
        moving = set().union(*await asyncio.gather(*(_under_way(pool, ids) for pool in pools)))
        for operation, legs in (await _legs([*pools, *archives], ids)).items():
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
