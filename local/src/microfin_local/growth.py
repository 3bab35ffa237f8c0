"""`make grow`: asks the running platform for more partitions and workers, and waits for them.

The command and the platform are two processes. The command writes its request into the state folder
and signals the platform. The platform carries it out and writes the result into the folder.
"""

import contextlib
import json
import os
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

from microfin_local.errors import PlatformError
from microfin_local.files import write_atomically
from microfin_local.ownership import owner

SIGNAL = signal.SIGUSR1
"""Makes the platform read the request."""

_WISH = "grow.json"
_ANSWER = "grown.json"
_PAUSE_SECONDS = 0.1
_PATIENCE_SECONDS = 400


def ask_to_grow(state: Path, workers: int) -> str:
    """Let the platform in `state` grow to `workers`; return its message when it has grown.

    Raises PlatformError if none runs, or with the reason if it did not grow.
    """
    platform = owner(state)
    if platform is None:
        raise PlatformError("The platform is not running. `make start` starts it.")
    wish = uuid4().hex
    write_atomically(state / _WISH, json.dumps({"wish": wish, "workers": workers}))
    with contextlib.suppress(ProcessLookupError):  # then it has another owner, or none
        os.kill(platform, SIGNAL)
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline and owner(state) == platform:
        answer = _read(state / _ANSWER)
        if answer is not None and answer.get("wish") == wish:
            if not answer["ok"]:
                raise PlatformError(answer["said"])
            return str(answer["said"])
        time.sleep(_PAUSE_SECONDS)
    raise PlatformError("The platform did not answer; see its log. Try `make grow` again.")


async def grant(state: Path, grow: Callable[[int], Awaitable[str]]) -> None:
    """Carry out the request in `state`, in the platform's process, and write the answer."""
    wish = _read(state / _WISH)
    if wish is None:
        return
    try:
        said, ok = await grow(wish["workers"]), True
    except (PlatformError, OSError) as error:
        said, ok = str(error), False
    write_atomically(state / _ANSWER, json.dumps({"wish": wish["wish"], "ok": ok, "said": said}))


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return content
