"""Password hashes: argon2id, off the event loop, a limited number at a time."""

import sys
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from microfin.people.identity import load_known_passwords, password_forms
from microfin.process.settings import ApiSettings
from microfin_api.people.hashing_queue import HashingQueue, Lane

_SWITCH_SECONDS: Final = 0.0005
"""After how long a waiting thread gets Python's lock. A hash needs it several times; with Python's
usual 5 ms that can take longer than the hash, while the event loop is busy."""


class Passwords:
    """Hashes and verifies passwords in separate threads (argon2 releases Python's lock)."""

    def __init__(self, settings: ApiSettings) -> None:
        self._hasher = PasswordHasher(
            time_cost=settings.argon2_time,
            memory_cost=settings.argon2_memory,
            parallelism=settings.argon2_parallelism,
        )
        self._queue = HashingQueue(settings.argon2_concurrency)
        load_known_passwords()
        sys.setswitchinterval(_SWITCH_SECONDS)
        # Passwords of unknown users are verified against it, so that the answer takes as long.
        self._nobody = self._hasher.hash("nobody's password")

    async def hash(self, password: str, lane: Lane = "sign_in") -> str:
        """Return the hash to store. Raises `Problem` if too many hashes are under way."""
        return await self._queue.run(lane, lambda: self._hasher.hash(password_forms(password)[0]))

    async def verify(self, stored: str | None, password: str, lane: Lane = "sign_in") -> bool:
        """Return whether `password` fits the hash; None never fits, and takes as long."""
        return await self._queue.run(lane, lambda: self._verify(stored, password))

    def require_room(self, lane: Lane) -> None:
        """Raise `Problem` if a hash would be refused now, before anything is counted for it."""
        self._queue.require_room(lane)

    def is_outdated(self, stored: str) -> bool:
        """Return whether the hash was made at another cost than the settings ask for."""
        return self._hasher.check_needs_rehash(stored)

    def close(self) -> None:
        """End the threads."""
        self._queue.close()

    def _verify(self, stored: str | None, password: str) -> bool:
        # All forms for everybody: an unknown user's password must take as long as another's.
        fits = [self._fits(stored or self._nobody, form) for form in password_forms(password)]
        return stored is not None and any(fits)

    def _fits(self, stored: str, password: str) -> bool:
        try:
            return self._hasher.verify(stored, password)
        except (VerificationError, InvalidHashError):
            return False
