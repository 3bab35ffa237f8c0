"""How many password hashes an API process computes at the same time, if nobody has said."""

import os
from pathlib import Path
from typing import Final

from microfin.process.settings import ApiSettings

_PROCESS_KIB: Final = 16 * 1024
"""What a process for hashes needs besides the memory that a hash costs."""

_SHARE_OF_MEMORY: Final = 4
"""A crowd that signs in may fill one part in four of the memory: the rest is for everything else,
and a container whose memory is full is killed."""


def hashes_at_once(settings: ApiSettings, root: Path = Path("/")) -> int:
    """Return the setting, or how many cores and how much memory there are to spare for hashes.

    The event loop keeps one of the cores; on one core the two share it. `root` is for tests.
    """
    if settings.argon2_concurrency:
        return settings.argon2_concurrency
    most = len(os.sched_getaffinity(0))
    for group in _own_groups(root):
        most = min(most, _cores(group / "cpu.max") or most)
    most -= 1
    for group in _own_groups(root):
        if memory := _number(group / "memory.max"):
            share = memory // _SHARE_OF_MEMORY // 1024
            most = min(most, share // (_PROCESS_KIB + settings.argon2_memory))
    return max(1, most)


def _own_groups(root: Path) -> list[Path]:
    """Return our control groups (cgroups, version 2), the innermost first; each has limits."""
    mount = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    own = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), "")
    return [it for it in (mount / own, *(mount / own).parents) if it.is_relative_to(mount)]


def _cores(file: Path) -> int | None:
    """Return how many whole cores `cpu.max` allows ("QUOTA PERIOD"), None if it has no limit."""
    quota = _number(file)
    return None if quota is None else max(1, quota // int(file.read_text().split()[1]))


def _number(file: Path) -> int | None:
    """Return the first number of a file; None for "max", and if there is no such file."""
    try:
        first = file.read_text().split()[0]
    except (OSError, IndexError):
        return None
    return int(first) if first.isdigit() else None
