"""Starts a platform that continues when this process ends, and stops it again."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from microfin_local.endpoints import Endpoints, read_endpoints
from microfin_local.errors import PlatformError
from microfin_local.ownership import owner, starting

_PAUSE_SECONDS = 0.1
_STOP_SECONDS = 90


def start_detached(
    state: Path, environment: Mapping[str, str], say: Callable[[str], None]
) -> Endpoints:
    """Start `microfin_local run` in its own session; return when all is ready.

    Its messages are repeated here until then. Raises PlatformError if it ends before it is ready,
    or if another process is starting it already.
    """
    with starting(state):
        return _start(state, environment, say)


def _start(state: Path, environment: Mapping[str, str], say: Callable[[str], None]) -> Endpoints:
    process_id = owner(state)
    if process_id is not None:
        raise PlatformError(
            f"The platform in {state} is being started already (process {process_id}). "
            "`make status` shows when it is ready."
        )
    (state / "logs").mkdir(parents=True, exist_ok=True)
    log = state / "logs" / "platform.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "microfin_local", "--state", str(state), "run", "--quiet"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=dict(environment),
        )
    try:
        return _follow(process, state, log, say)
    except BaseException:
        process.terminate()
        process.wait()
        raise


def _follow(
    process: "subprocess.Popen[bytes]", state: Path, log: Path, say: Callable[[str], None]
) -> Endpoints:
    with log.open(errors="replace") as lines:
        while True:
            ended = process.poll() is not None
            endpoints = read_endpoints(state) if owner(state) == process.pid else None
            for line in lines:
                say(line.rstrip("\n"))
            if ended:
                raise PlatformError(f"The platform did not start (log: {log}).")
            if endpoints is not None:
                return endpoints
            time.sleep(_PAUSE_SECONDS)


def stop_detached(state: Path) -> bool:
    """Stop the platform in this state folder. Return False if none runs."""
    process_id = owner(state)
    if process_id is None:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(process_id, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_SECONDS
    while owner(state) == process_id:
        if time.monotonic() > deadline:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process_id, signal.SIGKILL)  # Its processes end with it.
        time.sleep(_PAUSE_SECONDS)
    return True
