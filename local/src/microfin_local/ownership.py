"""One supervisor for one state folder: who holds its lock owns the platform in it."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from microfin_local.errors import PlatformError

_LOCK_FILE = "supervisor"


def _try_lock(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def owning(state: Path) -> Iterator[None]:
    """Hold the state folder. Raises PlatformError if another supervisor holds it.

    The kernel lets go of the lock when we end, however that happens.
    """
    state.mkdir(parents=True, exist_ok=True)
    with (state / _LOCK_FILE).open("a+") as file:
        if not _try_lock(file):
            raise PlatformError(
                f"The platform in {state} is running already (process {owner(state)}). "
                "`make status` shows it, `make stop` stops it."
            )
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def owner(state: Path) -> int | None:
    """Return the process id of the supervisor that holds this state folder, or None."""
    try:
        with (state / _LOCK_FILE).open("r+") as file:
            if _try_lock(file):
                return None
            return int(file.read().strip() or 0) or None
    except FileNotFoundError:
        return None
