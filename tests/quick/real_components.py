"""The programs that a test of the quick tier must not start, and the hook that refuses them.

This module imports nothing of ours: `site/sitecustomize.py` also runs it in the Python processes
that tests start.
"""

import os
import sys
from collections.abc import Callable, Iterable

#: The servers and tools that `make setup` installs.
REAL_COMPONENTS = frozenset(
    {
        *("postgres", "initdb", "pg_ctl", "psql", "pg_dump", "pgbench", "pgbouncer"),
        *("redis-server", "nginx", "java", "mvn"),
        *("prometheus", "promtool", "prometheus-redis-exporter"),
    }
)
#: Names the file to which the processes of tests write what they were refused.
REFUSALS = "MICROFIN_QUICK_TIER_REFUSALS"
_STARTS = {"subprocess.Popen", "os.posix_spawn", "os.exec"}


class RealComponentRefused(BaseException):
    """A test tried to start a real component. No `except Exception` hides this."""


def real_component_in(words: Iterable[str]) -> str | None:
    """Return the real component that a command starts, also behind setpriv, env or `sh -c`."""
    for word in " ".join(words).split():
        name = word.rpartition("/")[2]
        if name in REAL_COMPONENTS:
            return name
    return None


def on_start(say: Callable[[str, tuple[str, ...]], None]) -> None:
    """Call `say` with each real component that this process starts, and with its command."""

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
        if component := real_component_in(command):
            say(component, command)

    sys.addaudithook(hook)


def report_and_refuse(component: str, command: tuple[str, ...]) -> None:
    """Refuse, and report it to the test's process, which may not look at our exit code."""
    if log := os.environ.get(REFUSALS):
        with open(log, "a", encoding="utf-8") as refusals:  # noqa: PTH123 - the least to import
            refusals.write(f"{component}\n")
    refuse(component, command)


def refuse(component: str, _command: tuple[str, ...]) -> None:
    """Raise, with what to do."""
    raise RealComponentRefused(
        f"This test starts {component}, but it does not request the fixture `real_components`. "
        "Request it, so that `make test-quick` leaves the test out."
    )
