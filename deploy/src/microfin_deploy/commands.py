"""Runs kubectl, helm and other programs, and reports their own error messages."""

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
"""The root folder of the checkout."""

Say = Callable[[str], None]
"""Prints one step for a person."""


class DeployError(Exception):
    """An error that a person can act on; the message says what is wrong and what to do."""


def progress() -> Say:
    """Return a function that prints a line with the seconds since this call."""
    began = time.monotonic()

    def say(message: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {message}", flush=True)

    return say


def run(*command: str, stdin: str | None = None) -> str:
    """Run a command in the checkout and return its output. Raises DeployError."""
    if shutil.which(command[0]) is None:
        raise DeployError(f"{command[0]} is not installed, or not on the PATH. Install it.")
    done = subprocess.run(
        command, input=stdin, capture_output=True, text=True, check=False, cwd=ROOT
    )
    if done.returncode:
        output = (done.stderr or done.stdout).strip()
        raise DeployError(f"{' '.join(command[:6])} failed:\n{output}")
    return done.stdout


def succeeds(*command: str) -> bool:
    """Return whether a command succeeds."""
    return subprocess.run(command, capture_output=True, check=False, cwd=ROOT).returncode == 0


def kubectl(*arguments: str, stdin: str | None = None) -> str:
    """Run kubectl."""
    return run("kubectl", *arguments, stdin=stdin)


def apply(*items: Mapping[str, Any]) -> None:
    """Apply objects."""
    listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=listed)


def exists(*what: str) -> bool:
    """Return whether an object exists, or at least one object that a selector matches."""
    try:
        return bool(kubectl("get", *what, "--ignore-not-found", "-o", "name").strip())
    except DeployError:  # the API server does not know the kind
        return False


def helm(*arguments: str) -> str:
    """Run helm."""
    return run("helm", *arguments)
