"""One supervisor for one state folder: the process with the folder's lock owns the platform."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from microfin_local.errors import PlatformError

_LOCK_FILE = "supervisor"
_STARTING_FILE = "starting"


def _try_lock(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def _holding(state: Path, name: str, otherwise: str) -> Iterator[None]:
    """Hold a lock file. Raises PlatformError with the text `otherwise` if another process holds it.

    The kernel releases the lock when this process ends for any reason.
    """
    state.mkdir(parents=True, exist_ok=True)
    with (state / name).open("a+") as file:
        if not _try_lock(file):
            raise PlatformError(otherwise.format(state=state, holder=_holder(state, name)))
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def owning(state: Path) -> contextlib.AbstractContextManager[None]:
    """Hold the state folder. Raises PlatformError if another supervisor holds it."""
    return _holding(
        state,
        _LOCK_FILE,
        "The platform in {state} is running already (process {holder}). "
        "`make status` shows it, `make stop` stops it.",
    )


def starting(state: Path) -> contextlib.AbstractContextManager[None]:
    """Hold the right to start the platform in a folder. Raises PlatformError if another does."""
    return _holding(
        state,
        _STARTING_FILE,
        "The platform in {state} is being started already (process {holder}). "
        "`make status` shows when it is ready.",
    )


def owner(state: Path) -> int | None:
    """Return the process id of the supervisor that holds this state folder, or None."""
    return _holder(state, _LOCK_FILE)


def _holder(state: Path, name: str) -> int | None:
    try:
        with (state / name).open("r+") as file:
            if _try_lock(file):
                return None
            return int(file.read().strip() or 0) or None
    except FileNotFoundError:
        return None
