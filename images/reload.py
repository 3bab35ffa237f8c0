"""Runs a module of microfin, and restarts it when its sources change (`skaffold dev`).

    python reload.py microfin_api

A container's root is read-only. So this program first copies the packages to memory (/dev/shm) and
runs the copy; skaffold writes changed files into the copy. If the module ends, for example because
of a mistake, this program waits for the next change: a new container would have the old sources.
"""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

PACKAGES = ("microfin", "microfin_api", "microfin_worker", "microfin_tools")
_PAUSE = 0.5


def copy_packages(folder: Path) -> None:
    """Copy the packages of microfin that are installed."""
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None:
            shutil.copytree(Path(spec.origin).parent, folder / name, dirs_exist_ok=True)


def changes(folder: Path) -> dict[str, int]:
    """Return the time of the last change of each source file."""
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*.py")}


def run(module: str, folder: Path) -> int:
    """Run the module from `folder` until a signal asks us to end, and return its exit code."""
    asked = False

    def end(_signal: int, _frame: FrameType | None) -> None:
        nonlocal asked
        asked = True

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    while True:
        seen = changes(folder)
        process = subprocess.Popen([sys.executable, "-m", module], env=environment)
        while not asked and changes(folder) == seen:
            time.sleep(_PAUSE)
            process.poll()  # Reaps the process if it has ended.
        process.terminate()
        code = process.wait()
        if asked:
            return code
        print(f"reload: {module} restarts because its sources changed", flush=True)


def main() -> None:
    """Run the module that the command line names."""
    folder = Path(os.environ.get("MICROFIN_RELOAD_FOLDER", "/dev/shm/source"))  # noqa: S108 - the pod's
    copy_packages(folder)
    sys.exit(run(sys.argv[1], folder))


if __name__ == "__main__":
    main()
