"""The limit on failed sign-ins, per e-mail address and per client address.

Counted in Redis for all processes; while Redis is away, each process counts for itself.
"""

import asyncio
import time
from collections import OrderedDict
from hashlib import blake2b
from typing import Final

from microfin.redis_cluster import GuardedRedis, RedisUnavailable
from microfin.settings import ApiSettings
from microfin_api.problems import Problem

WINDOW_SECONDS: Final = 60
_REMEMBERED: Final = 10_000


class SignInRate:
    """Counts failures and refuses what comes after too many of them."""

    def __init__(self, settings: ApiSettings, redis: GuardedRedis) -> None:
        self._email_limit = settings.sign_in_rate
        self._address_limit = settings.sign_in_address_rate
        self._redis = redis
        self._own = _OwnCounts()

    async def begin(self, email: str, address: str) -> None:
        """Raise `Problem` where this e-mail or client address has failed too often.

        An attempt counts as failed here until it succeeds, so that many at once gain nothing.
        """
        limits = self._limits(email, address)
        if any(self._own.count(key) >= limit for key, limit in limits):
            raise _too_many()
        for key, _ in limits:
            self._own.add(key, 1)
        counts = await asyncio.gather(*(self._count_of_all(key) for key, _ in limits))
        if any(count >= limit for count, (_, limit) in zip(counts, limits, strict=True)):
            self.take_back(email, address)
            raise _too_many()

    def take_back(self, email: str, address: str) -> None:
        """Take back what `begin` counted: the attempt has not failed."""
        for key, _ in self._limits(email, address):
            self._own.add(key, -1)

    async def note_failure(self, email: str, address: str) -> None:
        """Count one failure, for all processes."""
        for key, _ in self._limits(email, address):
            try:
                await self._redis.increment(key, seconds=WINDOW_SECONDS)
            except RedisUnavailable:
                continue

    async def _count_of_all(self, key: str) -> int:
        try:
            held = await self._redis.get(key)
        except RedisUnavailable:
            return 0
        return int(held) if held is not None and held.isdigit() else 0

    def _limits(self, email: str, address: str) -> list[tuple[str, int]]:
        hashed = blake2b(email.encode(), digest_size=16).hexdigest()
        limits = [
            (f"rate:sign_in:email:{hashed}", self._email_limit),
            (f"rate:sign_in:address:{address}", self._address_limit),
        ]
        return [(key, limit) for key, limit in limits if limit > 0]


def _too_many() -> Problem:
    return Problem("too_many_sign_ins", headers={"Retry-After": str(WINDOW_SECONDS)})


class _OwnCounts:
    """This process's own counters, the least recently used forgotten first."""

    def __init__(self) -> None:
        self._counts: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def count(self, key: str) -> int:
        ends, count = self._counts.get(key, (0.0, 0))
        return count if ends > time.monotonic() else 0

    def add(self, key: str, change: int) -> None:
        now = time.monotonic()
        ends, count = self._counts.pop(key, (0.0, 0))
        if ends <= now:
            ends, count = now + WINDOW_SECONDS, 0
        self._counts[key] = (ends, max(count + change, 0))
        if len(self._counts) > _REMEMBERED:
            self._counts.popitem(last=False)
