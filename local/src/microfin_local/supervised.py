"""One supervised process: it is started again when it dies, until it is stopped."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from microfin_local import process_tree

# The first restart is immediate (a killed worker must settle operations again within 3 s); the
# delay grows for a process that dies repeatedly. After this time it counts as healthy again.
_FIRST_DELAYS_SECONDS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
_WELL_AGAIN_SECONDS = 10.0
_ORPHAN_POLLS, _ORPHAN_POLL_SECONDS = 100, 0.02


@dataclass(frozen=True)
class Program:
    """How to run one process. `user` is the user to run it as, None for the current one."""

    name: str
    arguments: tuple[str, ...]
    directory: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    #: The signal that the kernel sends when the supervisor has ended for any reason.
    death_signal: signal.Signals = signal.SIGKILL
    grace_seconds: float = 10.0

    def command(self) -> list[str]:
        """Return the whole command line, with chrt(1) and setpriv(1) in front.

        chrt makes it a batch process, which does not interrupt another process when it wakes up.
        With all components on a few cores that saves many switches, and waiting work is done in one
        go. setpriv changes the user, requests the death signal from the kernel (a change of user
        would clear it), and then becomes the program, so the process id is the program's own.
        """
        return [
            "chrt",
            "--batch",
            "0",
            "setpriv",
            f"--pdeathsig={self.death_signal.name.removeprefix('SIG')}",
            *as_user(self.user),
            "--",
            *self.arguments,
        ]


def as_user(user: str | None) -> list[str]:
    """Return setpriv's arguments that change to a user; nothing for the current user."""
    return [] if user is None else [f"--reuid={user}", f"--regid={user}", "--init-groups"]


def bare_environment() -> dict[str, str]:
    """Return the environment variables that every program needs, without any that configure it."""
    return {
        name: value
        for name, value in os.environ.items()
        if name in {"PATH", "HOME", "LANG", "TZ", "TMPDIR", "JAVA_HOME"}
    }


class SupervisedProcess:
    """A program's process, its log file, and the task that restarts it."""

    def __init__(
        self,
        program: Program,
        log: Path,
        say: Callable[[str], None],
        changed: Callable[[], None],
    ) -> None:
        self.program = program
        self.log = log
        self.restarts = 0
        self._say = say
        self._changed = changed
        self._process: asyncio.subprocess.Process | None = None
        self._restarting: asyncio.Task[None] | None = None
        self._wanted = False
        self._spawning = asyncio.Lock()

    @property
    def process_id(self) -> int | None:
        """The process's id, or None while it does not run."""
        if self._process is None or self._process.returncode is not None:
            return None
        return self._process.pid

    @property
    def state(self) -> str:
        """One of `running`, `restarting` and `stopped`."""
        if self.process_id is not None:
            return "running"
        return "restarting" if self._wanted else "stopped"

    async def start(self) -> None:
        """Start it and restart it when it ends. Does nothing if it was started already."""
        if self._wanted:
            return
        self._wanted = True
        # Shielded: if the caller is cancelled, the process must still be known, to be stopped.
        await asyncio.shield(asyncio.create_task(self._begin()))

    async def stop(self) -> None:
        """Stop it for good: ask it to end, and kill it with its children after the grace period."""
        self._wanted = False
        async with self._spawning:  # Wait for a process that is being started.
            if self._restarting is not None:
                self._restarting.cancel()
                self._restarting = None
        if self._process is None or self.process_id is None:
            return
        family = process_tree.descendants(self._process.pid)
        process_tree.signal_tree(self._process.pid, signal.SIGCONT)
        self.signal(self.program.stop_signal)
        try:
            await asyncio.wait_for(self._process.wait(), self.program.grace_seconds)
        except TimeoutError:
            self._say(f"{self.program.name} did not stop within its grace; killing it")
            process_tree.signal_tree(self._process.pid, signal.SIGKILL)
            await self._process.wait()
        await _end_orphans(family[1:])
        self._changed()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process alone (not to its children), if it is still there.

        It may have ended without asyncio having noticed yet.
        """
        if self.process_id is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process_id, number)

    def kill(self) -> None:
        """Kill it and its children at once, as a crash would. It restarts unless it was stopped."""
        if self.process_id is not None:
            process_tree.signal_tree(self.process_id, signal.SIGKILL)

    def pause(self) -> None:
        """Freeze it and its children: they stay connected and do not answer."""
        if self.process_id is not None:
            process_tree.signal_tree(self.process_id, signal.SIGSTOP)

    def resume(self) -> None:
        """Continue it after `pause`."""
        if self.process_id is not None:
            process_tree.signal_tree(self.process_id, signal.SIGCONT)

    async def _begin(self) -> None:
        async with self._spawning:
            if self._wanted:
                await self._spawn()
                self._restarting = asyncio.create_task(
                    self._restart_on_exit(), name=f"restart {self.program.name}"
                )

    async def _spawn(self) -> None:
        with self.log.open("ab") as output:
            self._process = await spawn(self.program, output)
        self._changed()

    async def _restart_on_exit(self) -> None:
        failures = 0
        while True:
            assert self._process is not None  # noqa: S101 - start() spawned it before this task.
            started = time.monotonic()
            code = await self._process.wait()
            if time.monotonic() - started > _WELL_AGAIN_SECONDS:
                failures = 0
            delay = _FIRST_DELAYS_SECONDS[min(failures, len(_FIRST_DELAYS_SECONDS) - 1)]
            failures += 1
            self.restarts += 1
            when = f"in {delay} s" if delay else "at once"
            self._say(
                f"{self.program.name} {_ending(code)}; starting it again {when} (log: {self.log})"
            )
            await asyncio.sleep(delay)
            async with self._spawning:
                if not self._wanted:
                    return
                await self._spawn()


async def spawn(program: Program, output: IO[bytes]) -> asyncio.subprocess.Process:
    """Start a program in its own session, with its output in a file.

    The death signal belongs to the thread that starts the process (prctl(2)), so call this from
    the thread that lives as long as the platform: the one that runs the event loop.
    """
    return await asyncio.create_subprocess_exec(
        *program.command(),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=output,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
        cwd=program.directory,
        env={**bare_environment(), **program.environment},
    )


async def run_to_end(program: Program, log: Path) -> int:
    """Run a program until it ends, and return its exit code.

    Its output is added to the log. If this task is cancelled, the program is killed.
    """
    with log.open("ab") as output:
        process = await spawn(program, output)
    try:
        return await process.wait()
    finally:
        if process.returncode is None:
            process_tree.signal_tree(process.pid, signal.SIGKILL)


def _ending(code: int) -> str:
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


async def _end_orphans(process_ids: list[int]) -> None:
    """Wait for children that outlive their parent (most end with it), and kill the rest."""
    known = [(member, process_tree.start_time(member)) for member in process_ids]
    alive = [(member, started) for member, started in known if started is not None]
    for attempt in range(_ORPHAN_POLLS):
        alive = [pair for pair in alive if process_tree.is_alive(*pair)]
        if not alive:
            return
        if attempt == _ORPHAN_POLLS // 2:
            for member, _ in alive:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(member, signal.SIGKILL)
        await asyncio.sleep(_ORPHAN_POLL_SECONDS)
