"""All processes of one platform by name, and the file that lists them."""

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from microfin_local import process_tree
from microfin_local.errors import PlatformError
from microfin_local.files import write_atomically
from microfin_local.supervised import Program, SupervisedProcess

_BURIAL_POLLS = 100
_BURIAL_POLL_SECONDS = 0.1


class Supervisor:
    """Runs and restarts programs, and records their process ids for `status` and for clean-up."""

    def __init__(
        self,
        logs: Path,
        record: Path,
        say: Callable[[str], None],
        own: Mapping[str, Mapping[str, str]],
    ) -> None:
        self._own = own
        self._logs = logs
        self._record = record
        self._say = say
        self._processes: dict[str, SupervisedProcess] = {}
        logs.mkdir(parents=True, exist_ok=True)

    def __getitem__(self, name: str) -> SupervisedProcess:
        """Return a process by name. Raises PlatformError with all names if there is none."""
        if name not in self._processes:
            known = ", ".join(self._processes) or "none"
            raise PlatformError(f"There is no process called {name}; there are: {known}.")
        return self._processes[name]

    @property
    def names(self) -> list[str]:
        """The names of all processes, in the order in which they were started."""
        return list(self._processes)

    async def start(self, program: Program) -> SupervisedProcess:
        """Start a program with its configured environment, and restart it when it ends."""
        own = {**program.environment, **self._own.get(program.name, {})}
        program = dataclasses.replace(program, environment=own)
        if program.name not in self._processes:
            log = self._logs / f"{program.name}.log"
            self._processes[program.name] = SupervisedProcess(
                program, log, self._say, self._write_record
            )
        process = self._processes[program.name]
        await process.start()
        return process

    async def stop_all(self) -> None:
        """Stop all processes: those that receive requests first, those with data last."""
        order = [
            ("nginx",),
            ("api",),
            ("worker",),
            ("pgbouncer",),
            ("kafka", "redis", "postgres"),
            ("proxy",),
        ]
        for kinds in order:
            await asyncio.gather(
                *(p.stop() for name, p in self._processes.items() if name.startswith(kinds))
            )
        self._record.unlink(missing_ok=True)

    def _write_record(self) -> None:
        write_atomically(
            self._record,
            json.dumps([_describe(name, p) for name, p in self._processes.items()], indent=2),
        )


def _describe(name: str, process: SupervisedProcess) -> dict[str, Any]:
    process_id = process.process_id
    return {
        "name": name,
        "state": process.state,
        "process_id": process_id,
        "stop_signal": process.program.stop_signal,
        "start_time": None if process_id is None else process_tree.start_time(process_id),
        "restarts": process.restarts,
    }


def read_record(record: Path) -> list[dict[str, Any]]:
    """Return the last record of the supervisor's processes; empty if there is none."""
    try:
        processes: list[dict[str, Any]] = json.loads(record.read_text())
    except FileNotFoundError:
        return []
    return processes


def running(process: dict[str, Any]) -> bool:
    """Return whether a process of the record still runs."""
    process_id, started = process["process_id"], process["start_time"]
    return process_id is not None and process_tree.is_alive(process_id, started)


def end_leftovers(record: Path) -> list[str]:
    """Kill processes of the record that outlived their supervisor, and return their names.

    The kernel ends them with their supervisor; one that was frozen (SIGSTOP) can outlive it.
    """
    left = [process for process in read_record(record) if running(process)]
    for process in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process["process_id"], signal.SIGCONT)
        process_tree.signal_tree(process["process_id"], signal.SIGKILL)
    for process in left:
        _await_burial(process["process_id"])
    record.unlink(missing_ok=True)
    return [process["name"] for process in left]


def _await_burial(process_id: int) -> None:
    """Wait until a killed process is gone for good, at most ten seconds.

    Until its new parent has reaped it, PostgreSQL mistakes it for a server that still runs.
    """
    for _ in range(_BURIAL_POLLS):
        if not Path(f"/proc/{process_id}").exists():
            return
        time.sleep(_BURIAL_POLL_SECONDS)
