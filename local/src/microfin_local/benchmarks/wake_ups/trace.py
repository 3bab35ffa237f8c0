"""Asks the kernel, by `perf`, which thread woke which and when each ran. Needs root."""

import re
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from microfin_local.benchmarks.wake_ups.critical_path import Switch, WakeUp

_EVENTS: Final = (
    "sched:sched_waking",
    "sched:sched_switch",
    "syscalls:sys_enter_fdatasync",
    "syscalls:sys_exit_fdatasync",
)
_LINE: Final = re.compile(
    r"\s(?P<by>\d+) \[\d+\] +(?P<time>[\d.]+): +\S+:s(?:ched|ys)_(?P<what>\w+): "
)
_WOKEN: Final = re.compile(r" pid=(\d+) ")
_SWITCHED: Final = re.compile(r"prev_pid=(\d+) .*prev_state=(\S+) ==> .*next_pid=(\d+) ")


class Sync(msgspec.Struct, frozen=True):
    """At `time` (seconds), `thread` began or ended a call of fdatasync."""

    time: float
    thread: int
    begins: bool


Event = WakeUp | Switch | Sync


def record(seconds: float, file: Path) -> None:
    """Record the whole machine for `seconds`."""
    subprocess.run(
        [
            "perf",
            "record",
            "-e",
            ",".join(_EVENTS),
            "-a",
            "-m",
            "2048",
            "-o",
            file,
            "--",
            "sleep",
            str(seconds),
        ],
        check=True,
        capture_output=True,
    )


def read(file: Path) -> list[Event]:
    """Return what was recorded, in order."""
    printed = subprocess.run(
        ["perf", "script", "-i", file, "-F", "comm,tid,cpu,time,event,trace", "--ns"],
        check=True,
        capture_output=True,
        text=True,
    )
    return sorted(events_of(printed.stdout), key=lambda event: event.time)


def events_of(printed: str) -> Iterator[Event]:
    """Yield what `perf script` has printed."""
    for line in printed.splitlines():
        head = _LINE.search(line)
        if head is None:
            continue
        time, by, rest = float(head["time"]), int(head["by"]), line[head.end() :] + " "
        if head["what"] == "waking" and (woken := _WOKEN.search(rest)):
            yield WakeUp(time, by, int(woken[1]))
        elif head["what"] == "switch" and (switched := _SWITCHED.search(rest)):
            yield Switch(time, int(switched[1]), switched[2], int(switched[3]))
        elif head["what"].endswith("fdatasync"):
            yield Sync(time, by, begins=head["what"].startswith("enter"))


def sync_seconds(events: Iterable[Event]) -> dict[int, float]:
    """Return how many seconds each thread was in fdatasync."""
    begun: dict[int, float] = {}
    seconds: dict[int, float] = {}
    for event in events:
        if not isinstance(event, Sync):
            continue
        if event.begins:
            begun[event.thread] = event.time
        elif event.thread in begun:
            took = event.time - begun.pop(event.thread)
            seconds[event.thread] = seconds.get(event.thread, 0.0) + took
    return seconds
