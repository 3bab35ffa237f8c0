"""The activator: from N partitions to more, without refusing, losing or reordering anything.

It may be killed between any two steps; running it again completes what it finds. Shards of
different generations at one time are legal, so each shard is activated by itself.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Protocol
from uuid import UUID, uuid4

from microfin.database import DATABASE_ERRORS, is_connection_loss
from microfin.growth.postgres_routing import AnotherGrowth, NotActivated, ShardState
from microfin.routing import Routing, shard_of_partition

LEASE_SECONDS: Final = 1.0
"""How long an API process may send by a lease (see `microfin_api.leases`)."""

_LEASE_MARGIN: Final = 0.05  # seconds, for clocks that run at different speeds
_CUT_PATIENCE: Final = 3.0  # seconds for the partitions to pass their cuts, while commands are held
_DRAIN_PATIENCE: Final = 1.0  # seconds within which the lag must drain before anything is held
_ALIVE: Final = 10.0  # seconds since a partition's owner was last seen
_PAUSE: Final = 1.0
_LOOK_EVERY: Final = 0.02

LogEnds = Callable[[], Awaitable[Mapping[int, int]]]
"""Returns the offset after the last record of each partition of the topic."""

Say = Callable[[str], None]


class ShardRouting(Protocol):
    """One shard's routing; see `microfin.growth.postgres_routing.PostgresRouting`."""

    shard: int

    async def state(self) -> ShardState:
        """Return the shard's routing and its partitions."""

    async def prepare(self, current: Routing, intended: Routing, token: UUID) -> None:
        """Write the intent."""

    async def withdraw(self, token: UUID) -> None:
        """Take the intent back."""

    async def activate(self, intended: Routing, token: UUID, cuts: Mapping[int, int]) -> None:
        """Make the intended routing the routing."""


class GrowthClock(Protocol):
    """Time, as far as a growth needs it."""

    def monotonic(self) -> float:
        """Return seconds since some moment, never going back."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""


class GrowthRefused(Exception):
    """This growth cannot be; the message says why and what to do. Nothing was changed."""


class GrowthNotFinished(Exception):
    """The patience ended first. Running the same command again goes on from there."""


class _Overtaken(Exception):
    """Another command has used the generation that this one intends, for another routing."""


class Growth:
    """Grows the routing of all shards, shard by shard, to a number of partitions."""

    def __init__(
        self,
        shards: Sequence[ShardRouting],
        ends: LogEnds,
        clock: GrowthClock,
        say: Say,
        patience: float = 300.0,
    ) -> None:
        self._shards = shards
        self._ends = ends
        self._clock = clock
        self._say = say
        self._deadline = clock.monotonic() + patience

    async def to(self, partitions: int) -> Routing:
        """Grow to `partitions` and return the routing; complete an unfinished growth first.

        Raises `GrowthRefused` where that is impossible, `GrowthNotFinished` after the patience.
        """
        while True:
            try:
                return await self._grow(partitions)
            except _Overtaken:
                self._say("another growth came first; looking again")
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
                f"its shard. Take {partitions + shards - partitions % shards}."
            )
        there = len(await self._ends())
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
        """Return the partitions that have no owner who was seen just now."""
        owned = {
            number
            for shard in self._shards
            for number, state in (await shard.state()).partitions.items()
            if state.idle_seconds < _ALIVE
        }
        return sorted(set(range(partitions)) - owned)

    async def _follow(self, intended: Routing) -> None:
        """Bring every shard to `intended`, however many attempts it takes."""
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

        Raises `_Overtaken` where one has another routing of that generation, or a later one.
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
        """Prepare, cut and activate once; what could not be activated is withdrawn."""
        if not await self._drains(behind):
            return
        token = uuid4()
        try:
            for shard in behind:
                await shard.prepare((await shard.state()).routing, intended, token)
            await self._clock.sleep(LEASE_SECONDS + _LEASE_MARGIN)
            cuts = await self._cuts(behind)
            if not await self._passed(behind, cuts, _CUT_PATIENCE):
                self._say("the partitions did not pass their cuts in time; trying again later")
                return
            for shard in behind:
                own = {
                    number: cut
                    for number, cut in cuts.items()
                    if shard_of_partition(number, len(self._shards)) == shard.shard
                }
                await shard.activate(intended, token, own)
                self._say(f"shard {shard.shard} has {intended.partition_count} partitions")
        except (AnotherGrowth, NotActivated) as error:
            self._say(f"not yet: {error}; trying again")
        finally:
            for shard in behind:
                await shard.withdraw(token)

    async def _drains(self, behind: Sequence[ShardRouting]) -> bool:
        """Tell whether the workers decide what is in the log within a second."""
        ends = await self._cuts(behind)
        if await self._passed(behind, ends, _DRAIN_PATIENCE):
            return True
        self._say("waiting: the workers are more than a second behind the log")
        return False

    async def _cuts(self, behind: Sequence[ShardRouting]) -> dict[int, int]:
        """Return the log's ends of the partitions that the shards' routings use now."""
        ends = await self._ends()
        cuts = {}
        for shard in behind:
            count = (await shard.state()).routing.partition_count
            for number in range(count):
                if shard_of_partition(number, len(self._shards)) == shard.shard:
                    cuts[number] = ends[number]
        return cuts

    async def _passed(
        self, behind: Sequence[ShardRouting], cuts: Mapping[int, int], patience: float
    ) -> bool:
        """Wait until every partition is at its cut or beyond; False where the patience ends."""
        deadline = self._clock.monotonic() + patience
        while True:
            reached = {
                number: state.next_offset
                for shard in behind
                for number, state in (await shard.state()).partitions.items()
            }
            if all(reached.get(number, -1) >= cut for number, cut in cuts.items()):
                return True
            if self._clock.monotonic() > deadline:
                return False
            await self._clock.sleep(_LOOK_EVERY)
