"""How often something may happen in a window of time, counted in Redis for all processes.

An attempt *acquires* one of an allowance before it is made, and *releases* it afterwards: then it
counts, or is given back. An acquisition that is never released keeps others out only until it
lapses, so that a process that dies, or an answer of Redis that comes too late, locks nobody out for
longer.

A counter is one value with its own end, and is never written without a time to live. A value that
cannot be read, or that ends further ahead than any window, counts as none and is written anew.
"""

import time
from collections.abc import Sequence
from enum import IntEnum
from typing import Final

import msgspec

from microfin.redis.guarded import GuardedRedis

LAPSE_MILLISECONDS: Final = 10_000
"""How long an acquisition waits for its release: longer than a password takes to be verified."""


class Result(IntEnum):
    """What an attempt to acquire yields. Busy: all are acquired, and some may be given back yet."""

    ACQUIRED = 0
    BUSY = 1
    FULL = 2


class Acquisition(msgspec.Struct, frozen=True):
    """A result and, if nothing was acquired, after how many milliseconds that can change."""

    result: Result
    milliseconds: int = 0


_SCRIPT: Final = """
local verb, now, window, limit, lapse =
    ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local counted, acquired, lapses, ends = 0, 0, 0, now + window
local held = redis.call('GET', KEYS[1])
local c, a, l, e = string.match(held or '', '^(%d+) (%d+) (%d+) (%d+)$')
if c and tonumber(e) > now and tonumber(e) <= now + 2 * window then
    counted, ends = tonumber(c), tonumber(e)
    if tonumber(l) > now then acquired, lapses = tonumber(a), tonumber(l) end
end
local function write()
    local value = string.format('%d %d %.0f %.0f', counted, acquired, lapses, ends)
    redis.call('SET', KEYS[1], value, 'PX', string.format('%.0f', ends - now))
end
if verb == 'acquire' then
    if counted >= limit then return {2, ends - now} end
    if counted + acquired >= limit then return {1, math.min(lapses, ends) - now} end
    acquired, lapses = acquired + 1, now + lapse
else
    acquired = math.max(acquired - 1, 0)
    if verb == 'count' then counted = counted + 1 end
    if counted + acquired == 0 then
        if held then redis.call('DEL', KEYS[1]) end
        return {0, 0}
    end
end
write()
return {0, 0}
"""


class Allowances:
    """Counts in Redis. Every call raises `RedisUnavailable` if Redis is."""

    def __init__(self, redis: GuardedRedis) -> None:
        self._redis = redis

    async def acquire(self, key: str, limit: int, *, seconds: int) -> Acquisition:
        """Acquire one of the `limit` that `key` has in each window of `seconds`."""
        result, milliseconds = await self._run(key, "acquire", seconds, limit)
        return Acquisition(Result(result), milliseconds)

    async def release(self, key: str, *, seconds: int, counts: bool) -> None:
        """Count an acquisition until the window ends, or give it back."""
        await self._run(key, "count" if counts else "release", seconds, 0)

    async def release_all(self, keys: Sequence[str], *, seconds: int, counts: bool) -> None:
        """Do what `release` does for several, in one write for each node; raises nothing."""
        verb = b"count" if counts else b"release"
        now, window = b"%d" % (time.time_ns() // 1_000_000), b"%d" % (seconds * 1000)
        arguments = (verb, now, window, b"0", b"%d" % LAPSE_MILLISECONDS)
        await self._redis.evaluate(_SCRIPT, [(key, arguments) for key in keys])

    async def _run(self, key: str, verb: str, seconds: int, limit: int) -> list[int]:
        now, window = time.time_ns() // 1_000_000, seconds * 1000
        reply: list[int] = await self._redis.run(
            _SCRIPT, key, verb, now, window, limit, LAPSE_MILLISECONDS
        )
        return reply


class _Counter(msgspec.Struct):
    counted: int
    acquired: int
    lapses: int
    ends: int


class OwnAllowances:
    """Counts for one process alone, and forgets the counter that was used least recently."""

    def __init__(self, remembered: int) -> None:
        self._remembered = remembered
        self._counters: dict[str, _Counter] = {}

    def acquire(self, key: str, limit: int, *, seconds: int, now: int = 0) -> Acquisition:
        """Acquire one of the `limit` that `key` has in each window of `seconds`."""
        now = now or time.monotonic_ns() // 1_000_000
        counter = self._counter(key, now, seconds * 1000)
        if counter.counted >= limit:
            return Acquisition(Result.FULL, counter.ends - now)
        if counter.counted + counter.acquired >= limit:
            return Acquisition(Result.BUSY, min(counter.lapses, counter.ends) - now)
        counter.acquired, counter.lapses = counter.acquired + 1, now + LAPSE_MILLISECONDS
        self._keep(key, counter)
        return Acquisition(Result.ACQUIRED)

    def release(self, key: str, *, seconds: int, counts: bool, now: int = 0) -> None:
        """Count an acquisition until the window ends, or give it back."""
        now = now or time.monotonic_ns() // 1_000_000
        counter = self._counter(key, now, seconds * 1000)
        counter.acquired = max(counter.acquired - 1, 0)
        counter.counted += counts
        if counter.counted + counter.acquired:
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
            counter.acquired = 0
        return counter

    def _keep(self, key: str, counter: _Counter) -> None:
        self._counters.pop(key, None)
        self._counters[key] = counter
        if len(self._counters) > self._remembered:
            del self._counters[next(iter(self._counters))]
