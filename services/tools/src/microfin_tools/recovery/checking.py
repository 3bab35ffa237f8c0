"""Whether a restored shard can be recovered, and what would be lost: changes nothing."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Protocol

import msgspec

import microfin_tools.migrations.versions
from microfin.ledger.fingerprint import fingerprint
from microfin.ledger.routing import shard_of_partition
from microfin.postgres.connections import Pool
from microfin.process.settings import CommonSettings
from microfin_tools.recovery.incomplete import incomplete_operations, stuck_transfers
from microfin_tools.recovery.log_scan import LogScan, Noticed, Say
from microfin_tools.recovery.report import CheckReport, PartitionPlace
from microfin_tools.recovery.shard_state import ShardState, changes, read_state
from microfin_tools.recovery.users import lost_users

_WATCH: Final = 5.0
"""Seconds in which any process at work on the shard writes: an idle worker does every 3 s."""


class LogBounds(Protocol):
    """The commands topic: where each partition begins and ends."""

    async def starts(self) -> Mapping[int, int]:
        """Return the first offset that each partition keeps."""

    async def ends(self) -> Mapping[int, int]:
        """Return the offset after the last record of each partition."""


class Recovery(msgspec.Struct, frozen=True):
    """The ledger of a recovery: all shards, past the pooler and as the owner; their archives, where
    there are any; the log; the number of the restored shard."""

    settings: CommonSettings
    pools: Sequence[Pool]
    archives: Sequence[Pool]
    archive_urls: Sequence[str]
    log: LogBounds
    shard: int
    say: Say

    @property
    def urls(self) -> list[str]:
        """The URLs of `pools`."""
        return self.settings.direct_database_urls


async def check(recovery: Recovery) -> tuple[CheckReport, ShardState]:
    """Return what a recovery would do, and the state of the restored shard on which this is based.

    Raises the database's and Kafka's errors, and `ValueError` if there is no such shard.
    """
    if not 0 <= recovery.shard < len(recovery.pools):
        raise ValueError(
            f"There is no shard {recovery.shard}: there are {len(recovery.pools)}, from 0 on."
        )
    states = [await read_state(pool) for pool in recovery.pools]
    state = states[recovery.shard]
    report = CheckReport(
        ok=False,
        shard=recovery.shard,
        generation=state.routing.generation,
        partition_count=state.routing.partition_count,
        partitions=await _places(recovery, state),
        refusals=_wrong_databases(states, recovery.shard),
        losses=[],
        notes=_notes(states, state),
        transfers=[],
        users=[],
    )
    report.refusals += [fault for it in report.partitions if (fault := _place_fault(it))]
    report.losses = [_loss(place) for place in report.partitions if place.lost]
    if not report.refusals:
        recovery.say(f"watching for {_WATCH:g} s whether anybody works on shard {recovery.shard}")
        await asyncio.sleep(_WATCH)
        report.refusals += changes(state, await read_state(recovery.pools[recovery.shard]))
    if not report.refusals:
        await _compare(recovery, state, report)
    report.ok = not report.refusals and not report.losses
    return report, state


async def _compare(recovery: Recovery, state: ShardState, report: CheckReport) -> None:
    """Compare the shard with the log and the other shards, and add the findings to `report`."""
    wanted = (
        await incomplete_operations(recovery.urls, recovery.archive_urls) if report.losses else []
    )
    async with LogScan(recovery.settings, recovery.say) as scan:
        report.refusals += await _strangers(scan, state, report.partitions)
        if report.refusals:
            return
        noticed = await _scan(scan, state, report.partitions, set(wanted))
    report.refusals += _later_routings(noticed, state)
    report.notes += _newer_versions(noticed)
    held = set().union(*(found.operations for found in noticed.values()))
    gone = await stuck_transfers(
        recovery.pools, (it for it in wanted if it not in held), recovery.archives
    )
    report.transfers = [found.transfer for _, found in gone.values()]
    if recovery.shard == 0:
        report.users = await lost_users(recovery.pools)


def _wrong_databases(states: Sequence[ShardState], shard: int) -> list[str]:
    """Return the faults for which these databases cannot be recovered now."""
    newest = _newest_revision()
    if states[shard].revision != newest:
        return _one(
            f"The restored shard has schema revision {states[shard].revision}, this release has "
            f"{newest}: run `microfin migrate`, and then this again."
        )
    growing = [state.shard for state in states if state.growing and state.shard != shard]
    if growing:
        return [f"Shard {growing[0]} is being grown at this moment: let that end first."]
    return []


def _one(sentence: str) -> list[str]:
    return [sentence]


def _newest_revision() -> str:
    folder = Path(str(microfin_tools.migrations.versions.__file__)).parent
    return max(path.name[:4] for path in folder.glob("[0-9][0-9][0-9][0-9]_*.py"))


async def _places(recovery: Recovery, state: ShardState) -> list[PartitionPlace]:
    starts, ends = await asyncio.gather(recovery.log.starts(), recovery.log.ends())
    places = []
    for number in sorted({*starts, *state.partitions}):
        if shard_of_partition(number, state.shards) != state.shard:
            continue
        row = state.partitions.get(number)
        next_offset = row.next_offset if row is not None else 0
        start, end = starts.get(number, 0), ends.get(number, 0)
        places.append(
            PartitionPlace(
                partition=number,
                claimed=row is not None,
                next_offset=next_offset,
                start=start,
                end=end,
                replays=max(0, end - max(next_offset, start)),
                lost=max(0, start - next_offset),
            )
        )
    return places


def _place_fault(place: PartitionPlace) -> str:
    if place.next_offset <= place.end:
        return ""
    return (
        f"The log of partition {place.partition} ends at offset {place.end}, and the restored "
        f"shard has decided up to {place.next_offset}: the log has lost records, or MICROFIN_KAFKA "
        "or MICROFIN_TOPIC name another log. See docs/runbooks/log-lost.md."
    )


def _loss(place: PartitionPlace) -> str:
    return (
        f"Partition {place.partition}: the commands at offsets {place.next_offset} to "
        f"{place.start - 1} were decided after the backup and have been trimmed from the log. "
        "Later ones would be decided without them, perhaps with other answers than clients got."
    )


def _notes(states: Sequence[ShardState], state: ShardState) -> list[str]:
    newest = max((it.routing for it in states), key=lambda it: it.generation)
    if newest.generation <= state.routing.generation:
        return []
    return _one(
        f"Another shard has {newest.partition_count} partitions already (generation "
        f"{newest.generation}): once this shard is verified, run "
        f"`microfin routing grow --partitions {newest.partition_count}`."
    )


async def _strangers(
    scan: LogScan, state: ShardState, places: Sequence[PartitionPlace]
) -> list[str]:
    """Return the partitions whose log is not the one from which this database was written."""
    found = []
    for place in places:
        row = state.partitions.get(place.partition)
        if row is None or row.fingerprint is None or place.next_offset <= place.start:
            continue
        last = await scan.record_at(place.partition, place.next_offset - 1)
        if last is None or row.fingerprint != fingerprint(
            last.offset, last.time, last.key, last.value
        ):
            found.append(
                f"The record at offset {place.next_offset - 1} of partition {place.partition} is "
                "not the one that the restored shard decided last: this is another log, or a "
                "backup of another ledger."
            )
    return found


async def _scan(
    scan: LogScan, state: ShardState, places: Sequence[PartitionPlace], wanted: set[str]
) -> dict[int, Noticed]:
    return {
        place.partition: await scan.scan(
            place.partition,
            max(place.next_offset, place.start),
            place.end,
            state.routing.generation,
            wanted,
        )
        for place in places
    }


def _later_routings(noticed: Mapping[int, Noticed], state: ShardState) -> list[str]:
    found = []
    for partition, it in noticed.items():
        if it.later is not None:
            found.append(
                f"The backup is from before the last growth: it has routing generation "
                f"{state.routing.generation}, and the record at offset {it.later.offset} of "
                f"partition {partition} was sent under generation {it.later_generation} at "
                f"{_moment(it.later.time)}. Only the lost database knew where each partition was "
                "cut, so the log cannot be decided again across a growth. Restore a backup from "
                "after that moment, or bring this one beyond it with archived WAL."
            )
    return found


def _moment(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds")


def _newer_versions(noticed: Mapping[int, Noticed]) -> list[str]:
    return [
        f"The record at offset {it.newer[0]} of partition {partition} has wire version "
        f"{it.newer[1]}: start workers of the release that writes it."
        for partition, it in noticed.items()
        if it.newer is not None
    ]
