"""Runs kubectl, helm and other programs, and reports their own error messages."""

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

ROOT = Path(__file__).resolve().parents[3]
"""The root folder of the checkout."""

LIMIT: Final = 1500.0
"""Seconds after which a program of the cluster ends, whatever it waits for."""

_BUILD_LIMIT: Final = 3600.0

# What kubectl says of a kind whose definition the cluster does not have.
_NO_SUCH_KIND: Final = "the server doesn't have a resource type"

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


def run(*command: str, stdin: str | None = None, limit: float = _BUILD_LIMIT) -> str:
    """Run a command in the checkout, at most `limit` seconds, and return its output.

    Raises DeployError.
    """
    if shutil.which(command[0]) is None:
        raise DeployError(f"{command[0]} is not installed, or not on the PATH. Install it.")
    try:
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, check=False, cwd=ROOT,
            timeout=limit,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise DeployError(
            f"{_short(command)} did not end within {limit:.0f} s. Check that the cluster answers "
            "(kubectl version), then run the same again."
        ) from None
    if done.returncode:
        output = (done.stderr or done.stdout).strip()
        raise DeployError(f"{_short(command)} failed:\n{output}")
    return done.stdout


def _short(command: tuple[str, ...]) -> str:
    return " ".join(command[:6])


def succeeds(*command: str) -> bool:
    """Return whether a command succeeds."""
    return subprocess.run(command, capture_output=True, check=False, cwd=ROOT).returncode == 0


def kubectl(*arguments: str, stdin: str | None = None) -> str:
    """Run kubectl."""
    return run("kubectl", *arguments, stdin=stdin, limit=LIMIT)


def apply(*items: Mapping[str, Any]) -> None:
    """Apply objects."""
    listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=listed)


def exists(*what: str) -> bool:
    """Return whether an object exists, or at least one object that a selector matches.

    Raises DeployError if the cluster does not say: an unanswered question is not a "no".
    """
    try:
        return bool(kubectl("get", *what, "--ignore-not-found", "-o", "name").strip())
    except DeployError as error:
        if _NO_SUCH_KIND in str(error):
            return False
        raise


def listed(*what: str) -> list[dict[str, Any]]:
    """Return the objects that `kubectl get` finds; none if the cluster lacks their definition.

    Raises DeployError if the cluster does not say.
    """
    try:
        found = kubectl("get", *what, "--ignore-not-found", "-o", "json")
    except DeployError as error:
        if _NO_SUCH_KIND in str(error):
            return []
        raise
    read: dict[str, Any] = json.loads(found) if found.strip() else {"items": []}
    items: list[dict[str, Any]] = read.get("items", [read])
    return items


def wait_until_gone(what: str, left: Callable[[], str], seconds: float, say: Say) -> None:
    """Wait until `left` is empty; it describes what is still there. Say every 10 s what it is.

    Raises DeployError after `seconds`.
    """
    began = spoke = time.monotonic()
    while remaining := left():
        now = time.monotonic()
        if now - began > seconds:
            raise DeployError(f"{what} is not gone after {seconds:.0f} s. {remaining}")
        if now - spoke > 10:
            say(f"still waiting until {what} is gone: {remaining}")
            spoke = now
        time.sleep(0.5)


def helm(*arguments: str) -> str:
    """Run helm."""
    return run("helm", *arguments, limit=LIMIT)
