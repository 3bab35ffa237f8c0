"""Runs kubectl, helm and the like, and says what went wrong in their own words."""

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
"""The checkout."""

Say = Callable[[str], None]
"""Tells a person of one step."""


class DeployError(Exception):
    """Something a person can act on; the message says what is wrong and what to do."""


def progress() -> Say:
    """Return what prints a line with the seconds since now."""
    began = time.monotonic()

    def say(message: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {message}", flush=True)

    return say


def run(*command: str, stdin: str | None = None) -> str:
    """Run a command in the checkout and return what it printed. Raises DeployError."""
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
    """Tell whether a command ends well."""
    return subprocess.run(command, capture_output=True, check=False, cwd=ROOT).returncode == 0


def kubectl(*arguments: str, stdin: str | None = None) -> str:
    """Run kubectl."""
    return run("kubectl", *arguments, stdin=stdin)


def apply(*items: Mapping[str, Any]) -> None:
    """Apply objects."""
    listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=listed)


def exists(*what: str) -> bool:
    """Tell whether an object is there, or at least one of those that a selector names."""
    try:
        return bool(kubectl("get", *what, "--ignore-not-found", "-o", "name").strip())
    except DeployError:  # the API server does not even know such objects
        return False


def helm(*arguments: str) -> str:
    """Run helm."""
    return run("helm", *arguments)
