"""Password hashes: argon2id, in processes of their own, a limited number at a time."""

import time
from typing import cast

from argon2 import PasswordHasher

from microfin.people.identity import load_known_passwords, password_forms
from microfin.process.settings import ApiSettings
from microfin_api.people.hashing_capacity import hashes_at_once
from microfin_api.people.hashing_processes import AHEAD, Cost, HashingProcesses
from microfin_api.people.hashing_queue import HashingQueue, Lane


class Passwords:
    """Hashes and verifies passwords beside the event loop."""

    def __init__(self, settings: ApiSettings) -> None:
        cost = Cost(settings.argon2_memory, settings.argon2_time, settings.argon2_parallelism)
        # For the cost of a stored hash. Only the processes compute hashes, but for the next one.
        self._hasher = PasswordHasher(
            time_cost=cost.time, memory_cost=cost.memory, parallelism=cost.lanes
        )
        load_known_passwords()
        began = time.perf_counter()
        # Passwords of unknown users are verified against it, so that the answer takes as long.
        self._nobody = self._hasher.hash("nobody's password")
        seconds, processes = time.perf_counter() - began, hashes_at_once(settings)
        self._queue = HashingQueue(processes * AHEAD, seconds * AHEAD)
        self._processes = HashingProcesses(cost, processes)

    async def start(self) -> None:
        """Start the first process that computes hashes; others start when they are needed."""
        await self._processes.start()

    async def hash(self, password: str, lane: Lane = "sign_in") -> str:
        """Return the hash to store. Raises `Problem` if none can be computed now."""
        forms = password_forms(password)[:1]
        return cast(
            "str", await self._queue.run(lane, lambda: self._processes.compute(None, forms))
        )

    async def verify(self, stored: str | None, password: str, lane: Lane = "sign_in") -> bool:
        """Return whether `password` fits the hash; None never fits, and takes as long.

        Raises `Problem` if that cannot be said now.
        """
        compared, forms = stored or self._nobody, password_forms(password)
        fits = await self._queue.run(lane, lambda: self._processes.compute(compared, forms))
        return stored is not None and fits is True

    def require_room(self, lane: Lane) -> None:
        """Raise `Problem` if a hash would be refused now, before anything is counted for it."""
        self._queue.require_room(lane)

    def is_outdated(self, stored: str) -> bool:
        """Return whether the hash was made at another cost than the settings ask for."""
        return self._hasher.check_needs_rehash(stored)

    def fault(self) -> str:
        """Say why nobody can sign in at this moment; empty if nothing is known to be wrong."""
        return self._processes.fault

    async def close(self) -> None:
        """End the processes."""
        await self._processes.close()
