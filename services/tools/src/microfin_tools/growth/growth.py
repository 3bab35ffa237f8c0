"""The activator: from N partitions to more, without refusing, losing or reordering a command.

It may be killed between any two steps; another run completes the unfinished growth. Shards may have
different generations at the same time, so each shard is activated on its own.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, Protocol
from uuid import UUID, uuid4

import msgspec

from microfin.kafka.producer import ProduceRefused, ProduceUnknown
from microfin.ledger.lease import CUT_SECONDS, GROWTH_WAIT_SECONDS
from microfin.ledger.routing import Routing, shard_of_partition
from microfin.postgres.connections import DATABASE_ERRORS, is_connection_loss
from microfin_tools.growth.postgres_routing import AnotherGrowth, NotActivated, ShardState

_DRAIN_PATIENCE: Final = 1.0  # seconds in which the lag must drain before commands wait
_ALIVE: Final = 10.0  # seconds since a partition's owner was last seen
_PAUSE: Final = 1.0
_LOOK_EVERY: Final = 0.02

Say = Callable[[str], None]


class ShardRouting(Protocol):
    """One shard's routing; see `microfin_tools.growth.postgres_routing.PostgresRouting`."""

    shard: int

    async def state(self) -> ShardState:
        """Return the shard's routing and its partitions."""

    async def prepare(self, current: Routing, intended: Routing, token: UUID) -> None:
        """Write the intent."""

    async def withdraw(self, token: UUID) -> None:
        """Delete the intent."""

    async def activate(
        self, current: Routing, intended: Routing, token: UUID, cuts: Mapping[int, int]
    ) -> None:
        """Replace the routing `current` by the intended one."""


class GrowthLog(Protocol):
    """The commands topic; see `microfin_tools.growth.marking.MarkedLog`."""

    async def ends(self) -> Mapping[int, int]:
        """Return where each partition ends, as some broker says: the answer may be old."""

    async def mark(
        self, partitions: Collection[int], current: Routing, intended: Routing
    ) -> Mapping[int, int]:
        """Append a marker to each of `partitions`; return the offsets behind them."""


class GrowthClock(Protocol):
    """Time, as far as a growth needs it."""

    def monotonic(self) -> float:
        """Return seconds since some moment, never going back."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""


class GrowthRefused(Exception):
    """This growth is impossible; the message says why and what to do. Nothing was changed."""


class GrowthNotFinished(Exception):
    """The patience ended first. The same command, run again, goes on from there."""


class _Overtaken(Exception):
    """Another command has used the generation that this one intends, for another routing."""


class _NotCut(Exception):
    """The partitions were not marked, or did not decide up to their markers, in time."""


class _Prepared(msgspec.Struct, frozen=True):
    """A shard that has the intent, and its routing when the intent was written."""

    shard: ShardRouting
    current: Routing

    def partitions(self, shards: int) -> list[int]:
        """Return the partitions of this shard over which accounts are spread now."""
        count = self.current.partition_count
        return [it for it in range(count) if shard_of_partition(it, shards) == self.shard.shard]


class Growth:
    """Grows the routing of all shards, shard by shard, to a number of partitions."""

    def __init__(
        self,
        shards: Sequence[ShardRouting],
        log: GrowthLog,
        clock: GrowthClock,
        say: Say,
        patience: float = 300.0,
    ) -> None:
        self._shards = shards
        self._log = log
        self._clock = clock
        self._say = say
        self._deadline = clock.monotonic() + patience

    async def to(self, partitions: int) -> Routing:
        """Grow to `partitions` and return the routing; complete an unfinished growth first.

        Raises `GrowthRefused` if that is impossible, `GrowthNotFinished` after the patience.
        """
        while True:
            try:
                return await self._grow(partitions)
            except _Overtaken:
                self._say("another growth came first; trying again")
                await self._pause(partitions)

    async def _grow(self, partitions: int) -> Routing:
        states = [await shard.state() for shard in self._shards]
        newest = max((state.routing for state in states), key=lambda it: it.generation)
        if any(state.routing != newest for state in states):
            self._say(f"completing the growth to {newest.partition_count} partitions")
            await self._follow(newest)
        if newest.partition_count == partitions:
            self._say(f"the routing has {partitions} partitions")
            return newest
        await self._check(newest, partitions)
        intended = Routing(newest.generation + 1, partitions)
        await self._follow(intended)
        self._say(f"grown to {partitions} partitions, generation {intended.generation}")
        return intended

    async def _check(self, current: Routing, partitions: int) -> None:
        count, shards = current.partition_count, len(self._shards)
        if partitions < count:
            raise GrowthRefused(
                f"There are {count} partitions, and {partitions} is fewer: partitions never shrink."
            )
        if partitions % shards:
            raise GrowthRefused(
                f"{partitions} is not a multiple of the {shards} shards: an account would change "
                f"its shard. Use {partitions + shards - partitions % shards}."
            )
        there = len(await self._log.ends())
        if there < partitions:
            raise GrowthRefused(
                f"The topic has {there} partitions: give it {partitions} first, and start a worker "
                "for each of them."
            )
        unclaimed = await self._unclaimed(partitions)
        if unclaimed:
            raise GrowthRefused(
                f"No worker has partitions {', '.join(map(str, unclaimed))}: start their workers "
                "and wait until they are ready."
            )

    async def _unclaimed(self, partitions: int) -> list[int]:
        """Return the partitions without an owner that was seen just now."""
        owned = {
            number
            for shard in self._shards
            for number, state in (await shard.state()).partitions.items()
            if state.idle_seconds < _ALIVE
        }
        return sorted(set(range(partitions)) - owned)

    async def _follow(self, intended: Routing) -> None:
        """Bring every shard to `intended`, in as many attempts as necessary."""
        while True:
            try:
                behind = await self._behind(intended)
                if not behind:
                    return
                await self._attempt(behind, intended)
            except DATABASE_ERRORS as error:
                if not is_connection_loss(error):
                    raise
                self._say(f"a database does not answer ({error!r}); trying again")
            if not await self._behind_or_unknown(intended):
                return
            await self._pause(intended.partition_count)

    async def _pause(self, partitions: int) -> None:
        if self._clock.monotonic() > self._deadline:
            raise GrowthNotFinished(
                f"Not all shards have {partitions} partitions yet; no command is held. Run the "
                "same command again to go on."
            )
        await self._clock.sleep(_PAUSE)

    async def _behind(self, intended: Routing) -> list[ShardRouting]:
        """Return the shards that have not reached `intended`.

        Raises `_Overtaken` if a shard has another routing of that generation, or a later one.
        """
        states = [(shard, (await shard.state()).routing) for shard in self._shards]
        behind = [(shard, routing) for shard, routing in states if routing != intended]
        if any(routing.generation >= intended.generation for _, routing in behind):
            raise _Overtaken
        return [shard for shard, _ in behind]

    async def _behind_or_unknown(self, intended: Routing) -> bool:
        try:
            return bool(await self._behind(intended))
        except DATABASE_ERRORS:
            return True

    async def _attempt(self, behind: Sequence[ShardRouting], intended: Routing) -> None:
        """Prepare, cut and activate once; delete the intent where activation failed."""
        if not await self._drains(behind):
            return
        token = uuid4()
        try:
            prepared = [await self._prepare(shard, intended, token) for shard in behind]
            await self._clock.sleep(GROWTH_WAIT_SECONDS)
            cuts = await self._cut(prepared, intended)
            for it, own in zip(prepared, cuts, strict=True):
                await it.shard.activate(it.current, intended, token, own)
                self._say(f"shard {it.shard.shard} has {intended.partition_count} partitions")
        except (AnotherGrowth, NotActivated) as error:
            self._say(f"not yet: {error}; trying again")
        except _NotCut as error:
            self._say(f"{error}; trying again later")
        finally:
            for shard in behind:
                await shard.withdraw(token)

    @staticmethod
    async def _prepare(shard: ShardRouting, intended: Routing, token: UUID) -> _Prepared:
        """Write the intent; the shard must still have its current routing at the activation."""
        current = (await shard.state()).routing
        await shard.prepare(current, intended, token)
        return _Prepared(shard, current)

    async def _drains(self, behind: Sequence[ShardRouting]) -> bool:
        """Return whether the workers decide the whole log within a second.

        If a broker reports too small an end of the log, the cut notices it.
        """
        ends = await self._log.ends()
        shards = [_Prepared(shard, (await shard.state()).routing) for shard in behind]
        goals = {it: ends[it] for shard in shards for it in shard.partitions(len(self._shards))}
        if await self._passed(behind, goals, self._clock.monotonic() + _DRAIN_PATIENCE):
            return True
        self._say("waiting: the workers are more than a second behind the log")
        return False

    async def _cut(
        self, prepared: Sequence[_Prepared], intended: Routing
    ) -> list[Mapping[int, int]]:
        """Mark each shard's partitions, and return the cuts after the partitions passed them.

        Raises `_NotCut` if that takes too long: commands wait meanwhile.
        """
        deadline = self._clock.monotonic() + CUT_SECONDS
        try:
            async with asyncio.timeout(CUT_SECONDS):
                cuts = [
                    await self._log.mark(it.partitions(len(self._shards)), it.current, intended)
                    for it in prepared
                ]
        except TimeoutError:
            raise _NotCut("the log did not accept the markers in time") from None
        except (ProduceRefused, ProduceUnknown) as error:
            raise _NotCut(f"the log did not accept the markers ({error})") from error
        goals = {number: cut for own in cuts for number, cut in own.items()}
        if not await self._passed([it.shard for it in prepared], goals, deadline):
            raise _NotCut("the partitions did not pass their cuts in time")
        return cuts

    async def _passed(
        self, shards: Sequence[ShardRouting], goals: Mapping[int, int], deadline: float
    ) -> bool:
        """Wait until every partition has reached its goal; return False after the deadline."""
        while True:
            reached = {
                number: state.next_offset
                for shard in shards
                for number, state in (await shard.state()).partitions.items()
            }
            if all(reached.get(number, -1) >= goal for number, goal in goals.items()):
                return True
            if self._clock.monotonic() > deadline:
                return False
            await self._clock.sleep(_LOOK_EVERY)
