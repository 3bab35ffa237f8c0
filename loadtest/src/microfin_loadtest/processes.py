"""CPU seconds and memory of the platform's processes, by group, from /proc (proc(5))."""

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from microfin_local.process_tree import start_time
from microfin_local.supervisor import read_record

GROUPS: Final = ("postgres", "pgbouncer", "kafka", "redis", "nginx", "api", "worker")
_PROC: Final = Path("/proc")
# Fields after the command's closing parenthesis; the times are utime, stime, cutime, cstime.
_PARENT, _TIMES, _RESIDENT = 1, slice(11, 15), 21
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_SAMPLE_SECONDS: Final = 1.0
# The kernel reads all pages of a process for its share of memory (ten times the rest's cost).
_SHARES_EVERY: Final = 10

Identity = tuple[int, int]


def group_of(name: str) -> str:
    """Return the group of a process's name: `redis` of `redis-2`."""
    return name.partition("-")[0]


@dataclass
class Usage:
    """CPU and memory of the groups. `largest_bytes` is the largest resident memory of one process.
    `peak_bytes` counts shared pages once (PSS), so that PostgreSQL's do not count for each process.
    """

    cpu_seconds: dict[str, float] = field(default_factory=dict)
    peak_bytes: dict[str, int] = field(default_factory=dict)
    largest_bytes: dict[str, int] = field(default_factory=dict)


class Sampler:
    """Measures the processes in a platform's record, in a thread, until it is stopped.

    The CPU time of each process in the record includes all its descendants: a child that has ended
    counts in its parent. A process that was restarted or added counts from its start.
    """

    def __init__(self, record: Path) -> None:
        self._record = record
        self._first: dict[Identity, int] = {}
        self._last: dict[Identity, int] = {}
        self._groups: dict[Identity, str] = {}
        self._peak: dict[str, int] = {}
        self._largest: dict[str, int] = {}
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
        self._sample()
        usage = Usage(dict.fromkeys(GROUPS, 0.0), self._peak, self._largest)
        for identity, ticks in self._last.items():
            group = self._groups[identity]
            used = (ticks - self._first[identity]) / _TICKS
            usage.cpu_seconds[group] = usage.cpu_seconds.get(group, 0.0) + used
        return usage

    def _watch(self) -> None:
        turn = 0
        while not self._stopped.wait(_SAMPLE_SECONDS):
            turn += 1
            self._sample(with_shares=turn % _SHARES_EVERY == 0)

    def _sample(self, *, is_first: bool = False, with_shares: bool = True) -> None:
        children, ticks, resident = _all_processes()
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
            largest = max(resident.get(member, 0) for member in members)
            self._largest[group] = max(self._largest.get(group, 0), largest)
            trees.append((group, members))
        if with_shares:
            self._sample_shares(trees)

    def _sample_shares(self, trees: Iterable[tuple[str, list[int]]]) -> None:
        shares: Counter[str] = Counter()
        for group, members in trees:
            shares[group] += sum(map(_share, members))
        for group, share in shares.items():
            self._peak[group] = max(self._peak.get(group, 0), share)


def _identity(process: dict[str, Any]) -> Identity | None:
    """Return a process's identity, which differs from a later one's with the same id; None if the
    process is gone."""
    process_id, started = process["process_id"], process["start_time"]
    if process_id is None or start_time(process_id) != started:
        return None
    return process_id, started


def _all_processes() -> tuple[dict[int, list[int]], dict[int, int], dict[int, int]]:
    """Return each process's children, the ticks that it and its ended children used, and its
    resident bytes."""
    children: dict[int, list[int]] = {}
    ticks: dict[int, int] = {}
    resident: dict[int, int] = {}
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
        resident[process_id] = int(fields[_RESIDENT]) * _PAGE
    return children, ticks, resident


def _tree(root: int, children: dict[int, list[int]]) -> list[int]:
    tree = [root]
    for member in tree:
        tree.extend(children.get(member, ()))
    return tree


def _share(process_id: int) -> int:
    """Return a process's share of memory (PSS), in bytes."""
    for line in _read(_PROC / str(process_id) / "smaps_rollup").splitlines():
        if line.startswith("Pss:"):
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
