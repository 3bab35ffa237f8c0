"""The job: from the oldest volume on, each one to the archive, compared, and out of the ledger.

A volume is committed in the archive before it leaves the ledger. If the job breaks off in between,
both have it; the next run compares them and goes on.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Final, Literal

import asyncpg
import msgspec

from microfin.postgres.connections import Connection
from microfin_tools.archive.account_states import states_set
from microfin_tools.archive.databases import NotArchivable, ShardAndArchive, open_databases
from microfin_tools.archive.eligible import why_not
from microfin_tools.archive.volume_tables import Contents, contents, copy, home

Progress = Callable[[str], None]
"""Receives a sentence about what begins now."""

_LOCK_WAIT: Final = "100ms"
_PAUSES: Final = (1.0, 10.0)
_PATIENCE: Final = 600.0
"""Seconds: how long an attempt to have the tables for itself makes others wait at most, the first
and the longest pause between two attempts, and how long to try."""

# A keeper that sums the volume up meanwhile would leave its summary behind.
_NOBODY_SUMS_UP: Final = "SELECT pg_advisory_xact_lock(hashtext('sum_up_volume'))"

_SUM_UP: Final = "SELECT sum_up_volume()"

_ONE_AT_A_TIME: Final = "SELECT pg_advisory_xact_lock(hashtext('microfin archive'))"

_NOTE: Final = "SELECT note_archived_volume($1, $2, $3, $4, $5, $6::text[], $7::text[])"


class Moved(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a volume. `state`: `archived` now, `ready` (a dry run found nothing against
    it), or `kept`, with the reason; no later volume of the shard was looked at then."""

    shard: int
    volume: int
    state: Literal["archived", "ready", "kept"]
    outcomes: int | None = None
    entries: int | None = None
    reason: str = ""


async def archive(
    urls: Sequence[str],
    archive_urls: Sequence[str],
    *,
    older_than: timedelta,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> list[Moved]:
    """Move the volumes whose outcomes are all older than `older_than` to the archives.

    `urls` and `archive_urls` are direct and the owner's, of all shards, shard 0 first. Money moves
    on meanwhile. Raises `NotArchivable`, `WrongShard`, `NotMigrated` or `WrongArchive`, all with a
    sentence, and what a database raises; what was archived before stays archived.
    """
    say = progress or (lambda _: None)
    results = []
    async with open_databases(urls, archive_urls) as pairs:
        for pair in pairs:
            await _check_volumes(pair)
        for pair in pairs:
            for volume in await _live_volumes(pair.ledger):
                say(f"shard {pair.number}: looking at volume {volume}")
                moved = await _consider(pairs, pair, volume, older_than, dry_run=dry_run, say=say)
                results.append(moved)
                if moved.state == "kept":
                    break
            if not dry_run:
                await _sum_up(pair, say)
    return results


async def _consider(
    pairs: Sequence[ShardAndArchive],
    pair: ShardAndArchive,
    volume: int,
    older_than: timedelta,
    *,
    dry_run: bool,
    say: Progress,
) -> Moved:
    """Move one volume if it may leave the ledger."""
    if volume == await pair.ledger.fetchval("SELECT max(volume) FROM volumes"):
        reason = "it is the newest, which is written to"
    else:
        reason = await why_not(pairs, pair, volume, older_than)
    if reason:
        return Moved(shard=pair.number, volume=volume, state="kept", reason=reason)
    if dry_run:
        return Moved(shard=pair.number, volume=volume, state="ready")
    has = await _move(pair, volume, say)
    return Moved(
        shard=pair.number,
        volume=volume,
        state="archived",
        outcomes=has.outcomes,
        entries=has.entries,
    )


async def _move(pair: ShardAndArchive, volume: int, say: Progress) -> Contents:
    """Let one volume leave the ledger for the archive, and return what it has."""
    ledger, archive = pair.ledger, pair.archive
    name = f"shard {pair.number}: volume {volume}"
    async with ledger.transaction():
        say(f"{name} is hashed")
        has = await contents(ledger, volume)
        states = await states_set(ledger, volume)
        async with archive.transaction():
            await archive.execute(_ONE_AT_A_TIME)
            if not await archive.fetchval(
                "SELECT EXISTS (SELECT FROM volumes WHERE volume = $1)", volume
            ):
                say(f"{name} is copied: {has.outcomes} outcomes, {has.entries} entries")
                await archive.execute("SELECT make_volume($1)", volume)
                await copy(ledger, archive, volume)
                say(f"{name} gets its keys in the archive")
                await archive.execute(
                    "SELECT take_volume_over($1, $2::text[], $3::text[])",
                    volume,
                    list(states),
                    list(states.values()),
                )
            say(f"{name} is compared")
            _compare(pair.number, volume, has, await contents(archive, volume))
            say(f"{name}: the balances go on from its end")
            await ledger.execute(_NOBODY_SUMS_UP)
            await ledger.execute(
                _NOTE, volume, *msgspec.structs.astuple(has), list(states), list(states.values())
            )
        say(f"{name} leaves the ledger")
        await _drop(ledger, volume)
    for table in ("outcomes", "entries"):
        await archive.execute(f"VACUUM (ANALYZE) {home(volume)}.{table}")
    return has


async def _sum_up(pair: ShardAndArchive, say: Progress) -> None:
    """Let look-ups in the archive name volumes; also those of a run that broke off before this."""
    say(f"shard {pair.number}: the archive is summed up, for look-ups")
    while await pair.archive.fetchval(_SUM_UP):
        pass


def _compare(shard: int, volume: int, here: Contents, there: Contents) -> None:
    if here != there:
        raise NotArchivable(
            f"Volume {volume} of shard {shard} has {here.outcomes} outcomes and {here.entries} "
            f"entries in the ledger, {there.outcomes} and {there.entries} in the archive, and "
            "their rows differ. Nothing was removed. Was one of the two restored from a backup? "
            "See docs/guide/archive.md."
        )


async def _drop(ledger: Connection, volume: int) -> None:
    """Remove the volume's tables as soon as nobody is in the way.

    Who waits for such a lock makes all wait who come later. So it waits for a moment only, which
    the batches under way need, and then lets others by.
    """
    pause, longest = _PAUSES
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            async with ledger.transaction():
                await ledger.execute(f"SET LOCAL lock_timeout = '{_LOCK_WAIT}'")
                await ledger.execute("SELECT drop_archived_volume($1)", volume)
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError) as error:
            if time.monotonic() > end:
                raise NotArchivable(
                    f"Volume {volume} is in the archive, but somebody has been reading the "
                    f"ledger's tables for {_PATIENCE:.0f} s, perhaps an audit, so it could not "
                    "leave the ledger. Nothing is lost or doubled: run `microfin archive` again "
                    "later."
                ) from error
        else:
            return
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, longest)


async def _live_volumes(connection: Connection) -> list[int]:
    rows = await connection.fetch("SELECT volume FROM volumes ORDER BY volume")
    return [row["volume"] for row in rows]


async def _check_volumes(pair: ShardAndArchive) -> None:
    """Refuse an archive that lacks a volume, or has one that the ledger does not know.

    It may be ahead: a run broke off, or the ledger was restored to a moment before.
    """
    live = await _live_volumes(pair.ledger)
    rows = await pair.ledger.fetch("SELECT volume FROM archived_volumes ORDER BY volume")
    archived = [row["volume"] for row in rows]
    there = await _live_volumes(pair.archive)
    lacking = sorted(set(archived) - set(there))
    if lacking:
        raise NotArchivable(
            f"The archive of shard {pair.number} lacks volume {lacking[0]}, which left the ledger: "
            "it is of an older backup. Restore its newest backup; see docs/guide/archive.md."
        )
    ahead = sorted(set(there) - set(archived))
    if ahead != live[: len(ahead)]:
        raise NotArchivable(
            f"The archive of shard {pair.number} has volume {ahead[-1]}, which the ledger has not: "
            "the ledger is of an older backup, or another one. See docs/guide/archive.md."
        )
