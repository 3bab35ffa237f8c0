"""How often something may happen in a window of time, counted in Redis for all processes.

Who tries something *takes* one of the allowance before, and *settles* it after: it counts, or it is
given back. What is taken and not settled keeps others out only until it lapses, so that a process
that dies, or an answer of Redis that comes too late, locks nobody out for longer than that.

A counter is one value with its own end, and is never written without a time to live. What cannot be
read as such a value, or ends further ahead than any window, counts as none and is written anew.
"""

import time
from enum import IntEnum
from typing import Final

import msgspec

from microfin.redis.guarded import GuardedRedis

LAPSE_MILLISECONDS: Final = 10_000
"""How long what was taken may wait to be settled. Longer than a password takes to be verified."""


class Result(IntEnum):
    """What a try to take comes to. Busy: all is taken, and some of it may be given back yet."""

    ACQUIRED = 0
    BUSY = 1
    FULL = 2


class Acquisition(msgspec.Struct, frozen=True):
    """An answer and, where nothing was taken, after how many milliseconds that can change."""

    result: Result
    milliseconds: int = 0


_SCRIPT: Final = """
local verb, now, window, limit, lapse =
    ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local counted, taken, lapses, ends = 0, 0, 0, now + window
local held = redis.call('GET', KEYS[1])
local c, t, l, e = string.match(held or '', '^(%d+) (%d+) (%d+) (%d+)$')
if c and tonumber(e) > now and tonumber(e) <= now + 2 * window then
    counted, ends = tonumber(c), tonumber(e)
    if tonumber(l) > now then taken, lapses = tonumber(t), tonumber(l) end
end
local function write()
    local value = string.format('%d %d %.0f %.0f', counted, taken, lapses, ends)
    redis.call('SET', KEYS[1], value, 'PX', string.format('%.0f', ends - now))
end
if verb == 'acquire' then
    if counted >= limit then return {2, ends - now} end
    if counted + taken >= limit then return {1, math.min(lapses, ends) - now} end
    taken, lapses = taken + 1, now + lapse
else
    taken = math.max(taken - 1, 0)
    if verb == 'count' then counted = counted + 1 end
    if counted + taken == 0 then
        if held then redis.call('DEL', KEYS[1]) end
        return {0, 0}
    end
end
write()
return {0, 0}
"""


class Allowances:
    """Counts in Redis. Every call raises `RedisUnavailable` where Redis is."""

    def __init__(self, redis: GuardedRedis) -> None:
        self._redis = redis

    async def acquire(self, key: str, limit: int, *, seconds: int) -> Acquisition:
        """Take one of the `limit` that `key` has in each window of `seconds`."""
        answer, milliseconds = await self._run(key, "acquire", seconds, limit)
        return Acquisition(Result(answer), milliseconds)

    async def release(self, key: str, *, seconds: int, counts: bool) -> None:
        """Let what was taken count until the window ends, or give it back."""
        await self._run(key, "count" if counts else "release", seconds, 0)

    async def _run(self, key: str, verb: str, seconds: int, limit: int) -> list[int]:
        now, window = time.time_ns() // 1_000_000, seconds * 1000
        reply: list[int] = await self._redis.run(
            _SCRIPT, key, verb, now, window, limit, LAPSE_MILLISECONDS
        )
        return reply


class _Counter(msgspec.Struct):
    counted: int
    taken: int
    lapses: int
    ends: int


class OwnAllowances:
    """The same for one process alone; the counter that was used least recently is forgotten."""

    def __init__(self, remembered: int) -> None:
        self._remembered = remembered
        self._counters: dict[str, _Counter] = {}

    def acquire(self, key: str, limit: int, *, seconds: int, now: int = 0) -> Acquisition:
        """Take one of the `limit` that `key` has in each window of `seconds`."""
        now = now or time.monotonic_ns() // 1_000_000
        counter = self._counter(key, now, seconds * 1000)
        if counter.counted >= limit:
            return Acquisition(Result.FULL, counter.ends - now)
        if counter.counted + counter.taken >= limit:
            return Acquisition(Result.BUSY, min(counter.lapses, counter.ends) - now)
        counter.taken, counter.lapses = counter.taken + 1, now + LAPSE_MILLISECONDS
        self._keep(key, counter)
        return Acquisition(Result.ACQUIRED)

    def release(self, key: str, *, seconds: int, counts: bool, now: int = 0) -> None:
        """Let what was taken count until the window ends, or give it back."""
        now = now or time.monotonic_ns() // 1_000_000
        counter = self._counter(key, now, seconds * 1000)
        counter.taken = max(counter.taken - 1, 0)
        counter.counted += counts
        if counter.counted + counter.taken:
            self._keep(key, counter)
        else:
            self._counters.pop(key, None)

    def __len__(self) -> int:
        return len(self._counters)

    def _counter(self, key: str, now: int, window: int) -> _Counter:
        counter = self._counters.get(key)
        if counter is None or counter.ends <= now:
            return _Counter(0, 0, 0, now + window)
        if counter.lapses <= now:
            counter.taken = 0
        return counter

    def _keep(self, key: str, counter: _Counter) -> None:
        self._counters.pop(key, None)
        self._counters[key] = counter
        if len(self._counters) > self._remembered:
            del self._counters[next(iter(self._counters))]
