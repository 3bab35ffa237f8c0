"""Finds the machine's programs, some of which Debian installs outside an ordinary PATH."""

import os
import shutil
from pathlib import Path

from microfin_local.errors import PlatformError

_SEARCH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"])


def find_program(name: str) -> str:
    """Return a program's full path. Raises PlatformError with what to do if it is missing."""
    found = shutil.which(name, path=_SEARCH)
    if found is None:
        raise PlatformError(f"{name} is not installed. Run `make setup`, which installs it.")
    return found


def find_postgresql() -> Path:
    """Return the folder of PostgreSQL's programs: Debian's newest version, else the PATH's."""
    majors = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/postgres"),
        key=lambda path: int(path.parts[-3]) if path.parts[-3].isdigit() else 0,
    )
    if majors:
        return majors[-1].parent
    return Path(find_program("postgres")).resolve().parent
