"""Small files of the platform's state, written so that a reader never sees half a file."""

import os
from pathlib import Path

PRIVATE = 0o600


def last_lines(path: Path, lines: int = 15) -> str:
    """Return the last lines of a log; nothing if there is no log yet."""
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return ""


def write_atomically(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a text file in one step; it has the given permissions from the start."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w") as file:
        file.write(text if text.endswith("\n") else text + "\n")
    draft.replace(path)
