"""The programs that a test of the quick tier must not start, and the hook that refuses them.

This module imports nothing of ours: `site/sitecustomize.py` also runs it in the Python processes
that tests start.
"""

import os
import sys
from collections.abc import Callable, Iterable

#: The servers and tools that `make setup` installs.
REAL_PARTS = frozenset(
    {
        *("postgres", "initdb", "pg_ctl", "psql", "pg_dump", "pgbench", "pgbouncer"),
        *("redis-server", "nginx", "java", "mvn"),
        *("prometheus", "promtool", "prometheus-redis-exporter"),
    }
)
#: Names the file to which processes that tests start write the real parts that they are refused.
REFUSALS = "MICROFIN_QUICK_TIER_REFUSALS"
_STARTS = {"subprocess.Popen", "os.posix_spawn", "os.exec"}


class RealPartRefused(BaseException):
    """A test of the quick tier tried to start a real part. No `except Exception` hides this."""


def real_part_in(words: Iterable[str]) -> str | None:
    """Return the real part that a command starts, directly or behind setpriv, env or `sh -c`."""
    for word in " ".join(words).split():
        name = word.rpartition("/")[2]
        if name in REAL_PARTS:
            return name
    return None


def on_start(say: Callable[[str, tuple[str, ...]], None]) -> None:
    """Call `say` with each real part that this process starts, and with its command."""

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event not in _STARTS:
            return
        program, words = arguments[0], arguments[1]
        if isinstance(words, str | bytes | os.PathLike):
            words = [words]
        command = tuple(
            os.fsdecode(word)
            for word in (program, *words)  # type: ignore[misc]
            if isinstance(word, str | bytes | os.PathLike)
        )
        if part := real_part_in(command):
            say(part, command)

    sys.addaudithook(hook)


def report_and_refuse(part: str, command: tuple[str, ...]) -> None:
    """Refuse, and report it to the test's process, which may not look at our exit code."""
    if log := os.environ.get(REFUSALS):
        with open(log, "a", encoding="utf-8") as refusals:  # noqa: PTH123 - the least to import
            refusals.write(f"{part}\n")
    refuse(part, command)


def refuse(part: str, _command: tuple[str, ...]) -> None:
    """Raise, with what to do."""
    raise RealPartRefused(
        f"This test starts {part}, but it does not request the fixture `real_parts`. Request it, "
        "so that `make test-quick` leaves the test out."
    )
