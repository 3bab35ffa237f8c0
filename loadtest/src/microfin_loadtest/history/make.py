"""Making a history in the running platform's shards."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final
from uuid import uuid4

import msgspec

from microfin.ledger.routing import shard_of_partition
from microfin.ledger.wire import Command
from microfin_loadtest.errors import LoadImpossible
from microfin_loadtest.history.decided import Decided, Past
from microfin_loadtest.history.rows import entry_lines, outcome_lines
from microfin_loadtest.history.shard import Lines, Place, Shard
from microfin_loadtest.history.traffic import Plan, requests

_OPERATIONS: Final = 10_000
"""Operations that are decided and copied at once."""

_DAY: Final = 24 * 60 * 60 * 1000
_UNTIL_NOW: Final = 60_000
"""Milliseconds between the end of the history and now."""

_OFFSETS_AN_OPERATION: Final = 2
"""A transfer across partitions takes two places in the log."""

_OUTCOMES_AN_OPERATION: Final = 1.5
"""At most, on average: half of the operations are transfers."""

_REPORT_SECONDS: Final = 5.0


_Piece = tuple[int, list[Lines]]
"""The number of operations, and each shard's lines."""


class HistoryRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What to make: so many `operations` on so many `accounts` of `owners`, in the last `days`;
    in volumes of `outcomes_per_volume`, by default of those of the ledger."""

    operations: int
    accounts: int
    owners: int
    days: int
    outcomes_per_volume: int | None = None


async def make_history(
    urls: Sequence[str], request: HistoryRequest, say: Callable[[str], None]
) -> dict[str, Any]:
    """Write the history into the shards of `urls`, and return what was made.

    The owners cannot sign in: they have no password. Raises LoadImpossible where the shards are
    not at one routing, a partition has no row yet, or another history is being written.
    """
    began = time.monotonic()
    plan = _plan(request)
    async with AsyncExitStack() as stack:
        shards = [await stack.enter_async_context(Shard(url)) for url in urls]
        taken = [await shard.account_numbers() for shard in shards]
        plan = msgspec.structs.replace(plan, taken=frozenset().union(*taken))
        place = await _place(shards)
        past = Past(
            place.routing,
            await _offsets(shards, place.routing.partition_count, plan.operations),
        )
        full = request.outcomes_per_volume or place.outcomes_per_volume
        volumes = _volumes(place.oldest, full * len(shards), plan.operations)
        making = _Making(shards, plan, past, volumes, say)
        await making.write()
        say("making keys, then adding all volumes at once")
        await making.add()
        say("VACUUM and ANALYZE")
        await _all(shard.clean() for shard in shards)
        say("summing up the volumes")
        await _all(shard.sum_up() for shard in shards)
    return {
        "operations": plan.operations,
        "accounts": len(past.opened),
        "volumes": len(volumes),
        "mark": plan.mark,
        "seconds": round(time.monotonic() - began, 1),
    }


def _plan(request: HistoryRequest) -> Plan:
    ends = int(time.time() * 1000) - _UNTIL_NOW
    return Plan(
        operations=request.operations,
        accounts=request.accounts,
        owners=[uuid4().hex for _ in range(request.owners)],
        begins=ends - request.days * _DAY,
        ends=ends,
        mark=secrets.token_hex(8),
    )


async def _place(shards: Sequence[Shard]) -> Place:
    """Return where all shards are: below the oldest volume of any."""
    places = [await shard.place() for shard in shards]
    if len({place.routing for place in places}) != 1:
        raise LoadImpossible("The shards are not at one routing: wait until the growth is over.")
    return min(places, key=lambda place: place.oldest)


async def _offsets(shards: Sequence[Shard], partitions: int, operations: int) -> dict[int, int]:
    """Return where each partition's history begins: so far below what is there that it fits."""
    found = [await shard.first_offsets() for shard in shards]
    if sum(map(len, found)) < partitions:
        raise LoadImpossible("A partition has had no worker yet: wait until the platform is ready.")
    return {
        partition: first - _OFFSETS_AN_OPERATION * operations
        for first_offsets in found
        for partition, first in first_offsets.items()
    }


def _volumes(oldest: int, outcomes: int, operations: int) -> range:
    """Return the volumes that the history takes, the oldest first; they end below those there."""
    ends = min(oldest, 0)
    return range(ends - max(1, round(operations * _OUTCOMES_AN_OPERATION / outcomes)), ends)


@dataclass(frozen=True)
class _Making:
    """A history that is being made: its `volumes` in the `shards`, and what was decided so far."""

    shards: Sequence[Shard]
    plan: Plan
    past: Past
    volumes: range
    say: Callable[[str], None]

    async def write(self) -> None:
        """Write all volumes, one after the other."""
        began = reported = time.monotonic()
        commands, made = requests(self.plan), 0
        for place, volume in enumerate(self.volumes, 1):
            ends = self.plan.operations * place // len(self.volumes)
            await _all(shard.begin_volume(volume) for shard in self.shards)
            async for count, lines in _ahead(self._pieces(commands, volume, made, ends)):
                await _all(map(Shard.write, self.shards, lines))
                made += count
                if (now := time.monotonic()) - reported > _REPORT_SECONDS or made == ends:
                    reported = now
                    self._report(made, now - began)
            await _all(map(Shard.end_volume, self.shards))

    async def add(self) -> None:
        """Add volumes, accounts, contra balances and owners to the ledger, all at once."""
        await _all(map(self._add, range(len(self.shards)), self.shards))
        # Only commits are left, so that hardly anything can come between those of two shards.
        await _all(map(Shard.commit, self.shards))

    async def _add(self, number: int, shard: Shard) -> None:
        await shard.begin_adding(self.volumes)
        for partition in range(number, self.past.routing.partition_count, len(self.shards)):
            await shard.add_accounts(self.past.accounts[partition].values(), self.past.opened)
            await shard.add_contra(partition, self.past.contra[partition])
        await shard.forget_audits()
        if number == 0:
            await shard.add_owners(self.plan.owners)

    def _pieces(
        self, commands: Iterator[Command], volume: int, begins: int, ends: int
    ) -> Iterator[_Piece]:
        """Decide a volume's requests, piece by piece."""
        while piece := list(islice(commands, min(_OPERATIONS, ends - begins))):
            times = map(self.plan.time_of, range(begins, begins + len(piece)))
            decided = self.past.decide(zip(piece, times, strict=True))
            yield len(piece), self._lines(volume, decided)
            begins += len(piece)

    def _lines(self, volume: int, decided: Sequence[Decided]) -> list[Lines]:
        outcomes: list[list[str]] = [[] for _ in self.shards]
        entries: list[list[str]] = [[] for _ in self.shards]
        for it in decided:
            number = shard_of_partition(it.partition, len(self.shards))
            outcomes[number] += outcome_lines(volume, it.partition, it.outcomes)
            entries[number] += entry_lines(volume, it.partition, it.entries)
        return [
            Lines("".join(of_outcomes).encode(), "".join(of_entries).encode())
            for of_outcomes, of_entries in zip(outcomes, entries, strict=True)
        ]

    def _report(self, made: int, seconds: float) -> None:
        wanted = self.plan.operations
        left = seconds / made * (wanted - made)
        self.say(f"{made:,} of {wanted:,} operations; {made / seconds:,.0f}/s, {left:.0f} s left")


async def _ahead(pieces: Iterator[_Piece]) -> AsyncIterator[_Piece]:
    """Yield the pieces; a thread makes the next one while the caller writes one."""
    coming = asyncio.ensure_future(asyncio.to_thread(next, pieces, None))
    while (piece := await coming) is not None:
        coming = asyncio.ensure_future(asyncio.to_thread(next, pieces, None))
        yield piece


async def _all(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Do all at once. If one fails the others end first, since their connections are needed."""
    for failure in await asyncio.gather(*work, return_exceptions=True):
        if failure is not None:
            raise failure
