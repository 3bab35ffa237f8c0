"""Clocks that jump: `shifted_clock.c` in front of the C library of single processes.

libfaketime would be the usual tool, but Debian 12's (0.9.10) breaks `clock_nanosleep` of Python
where the monotonic clock is to be left alone, and does not move Java's clock at all.
"""

import struct
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

_SOURCE = Path(__file__).with_name("shifted_clock.c")


class Clocks:
    """The clocks of some processes, by name. `folder` must be readable for those who run them."""

    def __init__(self, folder: Path, names: Iterable[str]) -> None:
        self._folder = folder
        self._names = list(names)
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)
        self._library = folder / "shifted_clock.so"
        _build(self._library)
        for name in self._names:
            self._file(name).write_bytes(bytes(8))

    def environments(self) -> Mapping[str, Mapping[str, str]]:
        """Return what the processes need in their environment, by name."""
        return {
            name: {"LD_PRELOAD": str(self._library), "SHIFTED_CLOCK": str(self._file(name))}
            for name in self._names
        }

    def set(self, name: str, seconds: float) -> None:
        """Let a process's clock be ahead by these seconds from now on."""
        with self._file(name).open("r+b", buffering=0) as file:
            file.write(struct.pack("=q", int(seconds)))

    def _file(self, name: str) -> Path:
        return self._folder / name


def _build(library: Path) -> None:
    command = ["cc", "-O2", "-Wall", "-shared", "-fPIC", "-o", str(library), str(_SOURCE), "-ldl"]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True)
    except FileNotFoundError:
        raise RuntimeError("There is no C compiler: install gcc and libc6-dev.") from None
    if done.returncode != 0:
        raise RuntimeError(f"{_SOURCE.name} was not compiled:\n{done.stderr}")
