"""Password hashes: argon2id, off the event loop, and only so many at a time."""

import asyncio
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from microfin.settings import ApiSettings
from microfin_api import metrics
from microfin_api.problems import Problem

_WAITING_PER_THREAD: Final = 16
"""How many hashes may wait for each that is computed: about half a second at the usual cost."""

_SWITCH_SECONDS: Final = 0.0005
"""After how long a thread that wants Python's lock gets it. A hash wants it several times; with
Python's usual 5 ms that can take longer than the hash, while the event loop is busy."""

_Result = TypeVar("_Result")


class Passwords:
    """Hashes and verifies passwords in threads of its own (argon2 releases Python's lock)."""

    def __init__(self, settings: ApiSettings) -> None:
        self._hasher = PasswordHasher(
            time_cost=settings.argon2_time,
            memory_cost=settings.argon2_memory,
            parallelism=settings.argon2_parallelism,
        )
        self._threads = ThreadPoolExecutor(settings.argon2_concurrency, "argon2")
        self._most = settings.argon2_concurrency * (1 + _WAITING_PER_THREAD)
        self._under_way = 0
        sys.setswitchinterval(_SWITCH_SECONDS)
        # Verified against where there is no such user, so that the answer takes as long.
        self._nobody = self._hasher.hash("nobody's password")

    async def hash(self, password: str) -> str:
        """Return the hash to store. Raises `Problem` where too many hashes are under way."""
        return await self._run(lambda: self._hasher.hash(password))

    async def verify(self, stored: str | None, password: str) -> bool:
        """Tell whether `password` fits the hash; None never fits, and takes as long."""
        return await self._run(lambda: self._verify(stored, password))

    def is_outdated(self, stored: str) -> bool:
        """Tell whether the settings ask for another cost than the hash was made at."""
        return self._hasher.check_needs_rehash(stored)

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _verify(self, stored: str | None, password: str) -> bool:
        try:
            self._hasher.verify(stored or self._nobody, password)
        except (VerificationError, InvalidHashError):
            return False
        return stored is not None

    async def _run(self, work: Callable[[], _Result]) -> _Result:
        if self._under_way >= self._most:
            raise Problem("overloaded", "Too many people are signing in at this moment.")
        self._change(1)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._change(-1)

    def _change(self, change: int) -> None:
        self._under_way += change
        metrics.PASSWORD_HASHES.set(self._under_way)
