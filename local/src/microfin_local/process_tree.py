"""Reads living processes and their descendants from /proc, and signals whole trees.

PostgreSQL gives each of its processes its own session, so a signal to a process group does not
reach them; a walk over the parents does.
"""

import os
import signal
from pathlib import Path

_PROC = Path("/proc")
# Fields of /proc/PID/stat after the command's closing parenthesis (proc(5)): state is the first.
_STATE, _PARENT, _START_TIME = 0, 1, 19


def _stat(process_id: int) -> list[str] | None:
    try:
        text = (_PROC / str(process_id) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text.rpartition(")")[2].split()


def start_time(process_id: int) -> int | None:
    """Return when a process started, in clock ticks since boot, or None if it is gone.

    Process ids are reused; the pair of id and start time is unique.
    """
    fields = _stat(process_id)
    if fields is None or fields[_STATE] == "Z":
        return None
    return int(fields[_START_TIME])


def is_alive(process_id: int, started: int) -> bool:
    """Return whether the process with this id is still the one that started then."""
    return start_time(process_id) == started


def descendants(process_id: int) -> list[int]:
    """Return the process and everything that descends from it, parents first."""
    children: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[_PARENT]), []).append(int(entry.name))
    tree = [process_id]
    for member in tree:
        tree.extend(children.get(member, ()))
    return tree


def signal_tree(process_id: int, number: signal.Signals) -> None:
    """Send a signal to a process and all its descendants; those already gone are no error."""
    for member in descendants(process_id):
        try:
            os.kill(member, number)
        except ProcessLookupError:
            continue
