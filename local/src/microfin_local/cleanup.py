"""Removes a platform's state; the downloads in `cache` stay."""

import shutil
from pathlib import Path

from microfin_local import database_home
from microfin_local.errors import PlatformError
from microfin_local.ownership import owner

_KEPT = "cache"
#: A platform's first start writes these; a folder without any of them must not be emptied.
_MARKS = ("platform.json", "ports.json", "supervisor", "logs", _KEPT)


def clean(state: Path) -> None:
    """Remove data, logs and passwords. Raises PlatformError while the platform runs."""
    if owner(state) is not None:
        raise PlatformError("The platform is running. Stop it with `make stop`, then clean.")
    database_home.forget(state)
    if not state.exists():
        return
    if not any((state / mark).exists() for mark in _MARKS):
        raise PlatformError(f"{state} does not look like a platform's state; nothing was removed.")
    for entry in state.iterdir():
        if entry.name == _KEPT:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
