"""CPU seconds and memory of the platform's processes, by group, from /proc (proc(5))."""

import os
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from microfin_local.process_tree import start_time
from microfin_local.supervisor import read_record

GROUPS: Final = ("postgres", "pgbouncer", "kafka", "redis", "nginx", "api", "worker")
_PROC: Final = Path("/proc")
# Fields after the command's closing parenthesis; the times are utime, stime, cutime, cstime.
_PARENT, _TIMES = 1, slice(11, 15)
_TICKS: Final = os.sysconf("SC_CLK_TCK")
# Between two samples only the CPU time of a process that dies is lost; a run measures few deaths.
_SAMPLE_SECONDS: Final = 5.0

Identity = tuple[int, int]


def group_of(name: str) -> str:
    """Return the group of a process's name: `redis` of `redis-2`."""
    return name.partition("-")[0]


@dataclass
class Usage:
    """CPU and memory of the groups. `memory_bytes` are those at the end; they count shared pages
    once (PSS), so that PostgreSQL's do not count for each process. `largest_bytes` is the most that
    one process had resident since it was started.
    """

    cpu_seconds: dict[str, float] = field(default_factory=dict)
    memory_bytes: dict[str, int] = field(default_factory=dict)
    largest_bytes: dict[str, int] = field(default_factory=dict)


class Sampler:
    """Measures the processes in a platform's record, in a thread, until it is stopped.

    The CPU time of each process in the record includes all its descendants: a child that has ended
    counts in its parent. A process that was restarted or added counts from its start.

    Memory is read once, after the run: for a process's share the kernel walks all its pages, and
    for all processes every ten seconds this took 5 % of two cores from what was measured.
    """

    def __init__(self, record: Path) -> None:
        self._record = record
        self._first: dict[Identity, int] = {}
        self._last: dict[Identity, int] = {}
        self._groups: dict[Identity, str] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="sampler", daemon=True)

    def start(self) -> None:
        """Begin to measure."""
        self._sample(is_first=True)
        self._thread.start()

    def stop(self) -> Usage:
        """Return the usage since the start."""
        self._stopped.set()
        self._thread.join()
        usage = Usage(dict.fromkeys(GROUPS, 0.0))
        shares: Counter[str] = Counter()
        for group, members in self._sample():
            shares[group] += sum(map(_share, members))
            largest = max(map(_most_resident, members))
            usage.largest_bytes[group] = max(usage.largest_bytes.get(group, 0), largest)
        usage.memory_bytes.update(shares)
        for identity, ticks in self._last.items():
            group = self._groups[identity]
            used = (ticks - self._first[identity]) / _TICKS
            usage.cpu_seconds[group] = usage.cpu_seconds.get(group, 0.0) + used
        return usage

    def _watch(self) -> None:
        while not self._stopped.wait(_SAMPLE_SECONDS):
            self._sample()

    def _sample(self, *, is_first: bool = False) -> list[tuple[str, list[int]]]:
        """Note the CPU time of all processes; return each one's group and its tree."""
        children, ticks = _all_processes()
        trees: list[tuple[str, list[int]]] = []
        for process in read_record(self._record):
            identity = _identity(process)
            if identity is None:
                continue
            group = group_of(process["name"])
            members = _tree(identity[0], children)
            self._groups[identity] = group
            self._last[identity] = sum(ticks.get(member, 0) for member in members)
            self._first.setdefault(identity, self._last[identity] if is_first else 0)
            trees.append((group, members))
        return trees


def cpu_of_tree(root: int) -> float:
    """Return the CPU seconds that a process and its descendants have used, the ended included."""
    children, ticks = _all_processes()
    return sum(ticks.get(member, 0) for member in _tree(root, children)) / _TICKS


def memory_of_tree(root: int) -> int:
    """Return the bytes of a process and its descendants, with shared pages by their share (PSS)."""
    children, _ = _all_processes()
    return sum(map(_share, _tree(root, children)))


def _identity(process: dict[str, Any]) -> Identity | None:
    """Return a process's identity, which differs from a later one's with the same id; None if the
    process is gone."""
    process_id, started = process["process_id"], process["start_time"]
    if process_id is None or start_time(process_id) != started:
        return None
    return process_id, started


def _all_processes() -> tuple[dict[int, list[int]], dict[int, int]]:
    """Return each process's children, and the ticks that it and its ended children used."""
    children: dict[int, list[int]] = {}
    ticks: dict[int, int] = {}
    for entry in _PROC.iterdir():
        if not entry.name.isdigit():
            continue
        text = _read(entry / "stat")
        if not text:
            continue
        fields = text.rpartition(")")[2].split()
        process_id = int(entry.name)
        children.setdefault(int(fields[_PARENT]), []).append(process_id)
        ticks[process_id] = sum(map(int, fields[_TIMES]))
    return children, ticks


def _tree(root: int, children: dict[int, list[int]]) -> list[int]:
    tree = [root]
    for member in tree:
        tree.extend(children.get(member, ()))
    return tree


def _share(process_id: int) -> int:
    """Return a process's share of memory (PSS), in bytes."""
    return _memory(process_id, "smaps_rollup", "Pss:")


def _most_resident(process_id: int) -> int:
    """Return the most bytes that a process has had resident since its start."""
    return _memory(process_id, "status", "VmHWM:")


def _memory(process_id: int, file: str, name: str) -> int:
    for line in _read(_PROC / str(process_id) / file).splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    return 0


def _read(path: Path) -> str:
    """Return a file of /proc, '' if its process is gone or belongs to another user."""
    try:
        return path.read_text()
    except OSError:
        return ""


def settings_of(record: Path, name: str, wanted: Callable[[str], bool]) -> dict[str, str]:
    """Return the environment variables that a process of the record was started with."""
    for process in read_record(record):
        if process["name"] == name and process["process_id"] is not None:
            text = _read(_PROC / str(process["process_id"]) / "environ")
            pairs = (pair.partition("=") for pair in text.split("\0") if pair)
            return {variable: value for variable, _, value in pairs if wanted(variable)}
    return {}
