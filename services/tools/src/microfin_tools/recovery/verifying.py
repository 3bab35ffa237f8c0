"""After the workers were started: wait until the log is decided, and report what is missing."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from microfin.ledger.wire import Command
from microfin.postgres.connections import read_snapshot
from microfin_tools.audit import audit
from microfin_tools.recovery.checking import Recovery
from microfin_tools.recovery.incomplete import incomplete_operations, stuck_transfers
from microfin_tools.recovery.legs import Unsettled
from microfin_tools.recovery.report import Transfer, VerifyReport
from microfin_tools.recovery.users import lost_users

_LOOK_EVERY: Final = 0.2
_SAY_EVERY: Final = 2.0

Send = Callable[[Command], Awaitable[None]]
"""Appends a command to its account's partition under the current routing."""


class ReplayNotFinished(Exception):
    """The patience ended before the workers had decided the log."""


async def verify(recovery: Recovery, patience: float, send: Send | None) -> VerifyReport:
    """Wait until all partitions have decided the log, and return the state then.

    With `send`, the missing commands of transfers that can be completed are sent again, each once.
    Raises `ReplayNotFinished` after `patience` seconds without progress.
    """
    await _replayed(recovery, patience)
    stuck = await _stuck(recovery, patience)
    sent: dict[tuple[str, str], Transfer] = {}
    while send is not None and (sendable := _sendable(stuck, sent)):
        for command, transfer in sendable:
            await send(command)
            sent[(command.operation, command.leg)] = transfer
        await _replayed(recovery, patience)
        stuck = await _stuck(recovery, patience)
    recovery.say("auditing")
    report = await audit(recovery.urls, log_ends=_ends_of(recovery), archives=recovery.archive_urls)
    users = await lost_users(recovery.pools) if recovery.shard == 0 else []
    owed = [found.transfer for found in stuck if found.command is not None]
    contradictory = [found.transfer for found in stuck if found.command is None]
    return VerifyReport(
        ok=report.ok and not stuck and not users,
        shard=recovery.shard,
        owed=owed,
        sent=list(sent.values()),
        contradictory=contradictory,
        users=users,
        audit=report,
    )


def _sendable(
    stuck: list[Unsettled], sent: Mapping[tuple[str, str], Transfer]
) -> list[tuple[Command, Transfer]]:
    return [
        (found.command, found.transfer)
        for found in stuck
        if found.command is not None and (found.command.operation, found.command.leg) not in sent
    ]


def _ends_of(recovery: Recovery) -> Callable[[], Awaitable[dict[int, int] | None]]:
    async def ends() -> dict[int, int] | None:
        return dict(await recovery.log.ends())

    return ends


async def _stuck(recovery: Recovery, patience: float) -> list[Unsettled]:
    """Return the transfers that are incomplete and have no command anywhere.

    A command that is in no outbox is in the log, below its current end. When the partitions have
    decided up to that end, it has left an outcome, or was forwarded: hence the second round.
    """
    recovery.say("looking for transfers that have not arrived")
    operations = await incomplete_operations(recovery.urls, recovery.archive_urls)
    stuck = await stuck_transfers(recovery.pools, operations, recovery.archives)
    for _ in range(2):
        if not stuck:
            return []
        await _replayed(recovery, patience)
        before = stuck
        stuck = {
            operation: found
            for operation, found in (
                await stuck_transfers(recovery.pools, before, recovery.archives)
            ).items()
            if found[0] == before[operation][0]
        }
    return [found for _, found in stuck.values()]


async def _replayed(recovery: Recovery, patience: float) -> None:
    """Wait until every partition has decided all records that are in its log now."""
    goals = dict(await recovery.log.ends())
    deadline = time.monotonic() + patience
    said = time.monotonic()
    before: dict[int, int] = {}
    while behind := _behind(goals, places := await _next_offsets(recovery)):
        now = time.monotonic()
        waiting = {it: places.get(it, 0) for it in behind}
        if waiting != before:
            before, deadline = waiting, now + patience
        elif now > deadline:
            raise ReplayNotFinished(
                f"{_progress(goals, places, behind)} and nothing has moved for {patience:g} s: are "
                "the workers of these partitions running? Their /status says why they wait. Run "
                "this again; it goes on from where they are."
            )
        if now - said > _SAY_EVERY:
            said = now
            recovery.say(_progress(goals, places, behind))
        await asyncio.sleep(_LOOK_EVERY)


def _behind(goals: Mapping[int, int], places: Mapping[int, int]) -> list[int]:
    return [number for number, goal in sorted(goals.items()) if places.get(number, 0) < goal]


def _progress(goals: Mapping[int, int], places: Mapping[int, int], behind: list[int]) -> str:
    places_of = (f"partition {it} is at {places.get(it, 0)} of {goals[it]}" for it in behind)
    return ", ".join(places_of)


async def _next_offsets(recovery: Recovery) -> dict[int, int]:
    places: dict[int, int] = {}
    for pool in recovery.pools:
        async with read_snapshot(pool) as connection:
            rows = await connection.fetch("SELECT partition, next_offset FROM partitions")
        places.update((row["partition"], row["next_offset"]) for row in rows)
    return places
