"""Turns at computing password hashes: signing in and signing up wait in lanes of their own.

Hashes are this process's most expensive work, and anybody may ask for them. Sign-ups use at most
half of the turns, and if both lanes wait they alternate: however many people sign up, sign-ins
get at least half of the cores, and never find their lane full of sign-ups.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, Literal, TypeVar

from microfin_api import metrics
from microfin_api.http.problems import Problem

Lane = Literal["sign_in", "sign_up"]

_LANES: Final[tuple[Lane, ...]] = ("sign_in", "sign_up")
_WAITING_SECONDS: Final = 0.5
"""How long a queue may get, if nothing disturbs the hashes."""

_WAITING_LEAST: Final = 2
"""How many hashes may wait for each that is under way, whatever they cost."""

_CROWDS: Final[dict[Lane, str]] = {
    "sign_in": "Too many people are signing in at this moment.",
    "sign_up": "Too many people are signing up at this moment.",
}
_Result = TypeVar("_Result")


class HashingQueue:
    """Does work of which `at_once` may be under way, in the order of each lane.

    `seconds` is how long one usually takes: it says how many may wait.
    """

    def __init__(self, at_once: int, seconds: float) -> None:
        self._free = at_once
        self._most: dict[Lane, int] = {"sign_in": at_once, "sign_up": max(1, at_once // 2)}
        self._room = max(_WAITING_LEAST, int(_WAITING_SECONDS / seconds))
        self._running: dict[Lane, int] = dict.fromkeys(_LANES, 0)
        self._waiting: dict[Lane, deque[asyncio.Future[None]]] = {it: deque() for it in _LANES}
        self._last: Lane = "sign_up"

    def require_room(self, lane: Lane) -> None:
        """Raise `Problem` if `lane` is full."""
        if len(self._waiting[lane]) >= self._most[lane] * self._room:
            raise Problem("overloaded", _CROWDS[lane])

    async def run(self, lane: Lane, work: Callable[[], Awaitable[_Result]]) -> _Result:
        """Return what `work` returns, in its turn. `Problem` if `lane` is full.

        The turn lasts until the work ends, also if the caller has gone away meanwhile.
        """
        self.require_room(lane)
        await self._turn(lane)
        working = asyncio.ensure_future(work())
        working.add_done_callback(partial(self._finish, lane))
        return await asyncio.shield(working)

    async def _turn(self, lane: Lane) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._waiting[lane].append(turn)
        self._give_turns()
        try:
            await turn
        except asyncio.CancelledError:
            if turn in self._waiting[lane]:
                self._waiting[lane].remove(turn)
            else:  # it got its turn at the same moment
                self._end(lane)
            raise

    def _finish(self, lane: Lane, working: asyncio.Future[_Result]) -> None:
        if not working.cancelled():
            working.exception()  # if nobody waits for it any more, nobody needs to know
        self._end(lane)

    def _end(self, lane: Lane) -> None:
        self._free += 1
        self._running[lane] -= 1
        self._give_turns()

    def _give_turns(self) -> None:
        while self._free and (lane := self._next_lane()):
            self._free -= 1
            self._running[lane] += 1
            self._last = lane
            turn = self._waiting[lane].popleft()
            if not turn.done():
                turn.set_result(None)
        metrics.PASSWORD_HASHES.set(
            sum(self._running.values()) + sum(map(len, self._waiting.values()))
        )

    def _next_lane(self) -> Lane | None:
        able = [it for it in _LANES if self._waiting[it] and self._running[it] < self._most[it]]
        others = [lane for lane in able if lane != self._last]
        return next(iter(others or able), None)
