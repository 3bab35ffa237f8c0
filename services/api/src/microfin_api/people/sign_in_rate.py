"""The limits on attempts of strangers: failed sign-ins, and sign-ups.

They are counted in Redis for all processes; while Redis is away, each process counts alone. An
attempt acquires one of each allowance before it is made, and gives it back unless it fails: many
attempts at once gain nothing, and right passwords cost nothing. If others hold the rest of an
allowance, the attempt waits for them.

A failure is counted at once. What is given back can wait a moment: under load it travels with what
the next attempt asks, and costs no write of its own.
"""

import asyncio
import math
import random
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Final, Literal, Self

import msgspec

from microfin.process.settings import ApiSettings
from microfin.redis.guarded import GuardedRedis, RedisUnavailable
from microfin_api.http.problems import Problem
from microfin_api.people.allowance import (
    LAPSE_MILLISECONDS,
    Acquisition,
    Allowances,
    OwnAllowances,
    Result,
)
from microfin_api.people.unawaited import Unawaited

WINDOW_SECONDS: Final = 60
_REMEMBERED: Final = 10_000
_PATIENCE_SECONDS: Final = 5.0
_RETRY_SECONDS: Final = 0.1
_GIVE_BACK_WITHIN: Final = 0.05
"""Seconds after which Redis learns what is given back, if no other attempt asks it before."""

Code = Literal["too_many_sign_ins", "too_many_sign_ups"]


class Limit(msgspec.Struct, frozen=True):
    """How many may fail in a window under `key`."""

    key: str
    most: int


class SignInRate:
    """Knows the limits, and counts attempts."""

    def __init__(self, settings: ApiSettings, redis: GuardedRedis) -> None:
        self._settings = settings
        self._redis = Allowances(redis)
        self._own = OwnAllowances(_REMEMBERED)
        self._releases = Unawaited()
        self._to_give_back: list[str] = []
        self._giving_back: asyncio.TimerHandle | None = None

    def of_address(self, address: str) -> list[Limit]:
        """Return the limits on failed sign-ins from a client's address, for whichever user."""
        return [Limit(f"rate:in:address:{address}", self._settings.sign_in_address_rate)]

    def of_stranger(self, email: str, address: str) -> list[Limit]:
        """Return the limits on failed sign-ins to `email` by an unknown device.

        The braces let both keys be of one node, so that they travel together.
        """
        hashed = f"{{{_hashed(email)}}}"
        return [
            Limit(f"rate:in:pair:{hashed}:{address}", self._settings.sign_in_rate),
            Limit(f"rate:in:email:{hashed}", self._settings.sign_in_email_rate),
        ]

    def of_device(self, device: str) -> list[Limit]:
        """Return the limits on failed sign-ins by a device that is known to the user.

        They are its own: attempts of strangers at the user's address do not keep it out.
        """
        return [Limit(f"rate:in:device:{_hashed(device)}", self._settings.sign_in_rate)]

    def of_user(self, user: str) -> list[Limit]:
        """Return the limits on wrong passwords by a person who is signed in as `user`."""
        return [Limit(f"rate:in:user:{user}", self._settings.sign_in_rate)]

    async def count_sign_up(self, address: str) -> None:
        """Count a sign-up from `address`. Raises `Problem` if there were too many."""
        limit = Limit(f"rate:up:address:{address}", self._settings.sign_up_address_rate)
        with self.attempt("too_many_sign_ups") as attempt:
            await attempt.acquire([limit])
            attempt.failed = True  # here the attempt itself counts

    def attempt(self, code: Code) -> "Attempt":
        """Return an attempt that has acquired nothing yet; too many of its kind are a `code`."""
        return Attempt(self, code)

    async def try_to_acquire(self, limits: Sequence[Limit]) -> list[Acquisition]:
        """Acquire one of each, or none; return what prevents it, or nothing if it was acquired."""
        own = [self._own.acquire(limit.key, limit.most, seconds=WINDOW_SECONDS) for limit in limits]
        if blocked := _blocked(own):
            self._release_own(_acquired(limits, own), counts=False)
            return blocked
        self._give_back()  # at first: we may be about to ask for the same
        acquisitions = await asyncio.gather(*(self._acquire_for_all(limit) for limit in limits))
        if blocked := _blocked(acquisitions):
            self._release_own(limits, counts=False)
            self._release_for_all(_acquired(limits, acquisitions), counts=False)
        return blocked

    def release(self, limits: Sequence[Limit], *, counts: bool) -> None:
        """Count what was acquired, or give it back. Nobody waits for Redis to do so."""
        self._release_own(limits, counts=counts)
        self._release_for_all(limits, counts=counts)

    async def _acquire_for_all(self, limit: Limit) -> Acquisition:
        try:
            return await self._redis.acquire(limit.key, limit.most, seconds=WINDOW_SECONDS)
        except RedisUnavailable:
            return Acquisition(Result.ACQUIRED)

    def _release_own(self, limits: Iterable[Limit], *, counts: bool) -> None:
        for limit in limits:
            self._own.release(limit.key, seconds=WINDOW_SECONDS, counts=counts)

    def _release_for_all(self, limits: Sequence[Limit], *, counts: bool) -> None:
        keys = [limit.key for limit in limits]
        if counts and keys:
            self._releases.begin(self._redis.release_all(keys, seconds=WINDOW_SECONDS, counts=True))
            return
        self._to_give_back += keys
        if self._to_give_back and self._giving_back is None:
            loop = asyncio.get_running_loop()
            self._giving_back = loop.call_later(_GIVE_BACK_WITHIN, self._give_back)

    async def stop(self, seconds: float) -> None:
        """Give back what has waited for another attempt; Redis has `seconds` to take it."""
        self._give_back()
        await self._releases.finish(seconds)

    def _give_back(self) -> None:
        """Give back in Redis what is not needed any more, with what this turn asks of it."""
        if self._giving_back is None:
            return
        self._giving_back.cancel()
        self._giving_back = None
        keys, self._to_give_back = self._to_give_back, []
        self._releases.begin(self._redis.release_all(keys, seconds=WINDOW_SECONDS, counts=False))


class Attempt:
    """One attempt, a context: what it has acquired, and whether it failed.

    When it ends, what it acquired is given back unless it failed.
    """

    def __init__(self, rate: SignInRate, code: Code) -> None:
        self.failed = False
        self._rate = rate
        self._code = code
        self._acquired: list[Limit] = []
        self._lapses = math.inf

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # To give back what has lapsed would give back what another attempt has acquired since.
        if self.failed or asyncio.get_running_loop().time() + _GIVE_BACK_WITHIN < self._lapses:
            self._rate.release(self._acquired, counts=self.failed)
        self._acquired = []

    async def acquire(self, limits: Iterable[Limit]) -> None:
        """Acquire one of each allowance. Raises `Problem` if one of them is used up."""
        limits = [limit for limit in limits if limit.most > 0]
        loop = asyncio.get_running_loop()
        patient_until = loop.time() + _PATIENCE_SECONDS
        while blocked := await self._rate.try_to_acquire(limits):
            milliseconds = max(acquisition.milliseconds for acquisition in blocked)
            if any(it.result is Result.FULL for it in blocked) or loop.time() > patient_until:
                raise Problem(self._code, headers={"Retry-After": str(milliseconds // 1000 + 1)})
            # Unequal waits, so that attempts that need what the other holds do not meet again.
            await asyncio.sleep(_RETRY_SECONDS * (0.5 + random.random()))  # noqa: S311
        self._acquired += limits
        self._lapses = min(self._lapses, loop.time() + LAPSE_MILLISECONDS / 1000)


def _blocked(acquisitions: Iterable[Acquisition]) -> list[Acquisition]:
    return [
        acquisition for acquisition in acquisitions if acquisition.result is not Result.ACQUIRED
    ]


def _acquired(limits: Sequence[Limit], acquisitions: Sequence[Acquisition]) -> list[Limit]:
    return [
        limit
        for limit, acquisition in zip(limits, acquisitions, strict=True)
        if acquisition.result is Result.ACQUIRED
    ]


def _hashed(text: str) -> str:
    return blake2b(text.encode(), digest_size=16).hexdigest()
