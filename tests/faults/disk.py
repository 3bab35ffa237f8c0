"""A small file system for PostgreSQL, which can be filled up and released.

It is a tmpfs of its own, mounted below the folder of the platform, which needs root.
"""

import os
import subprocess
from pathlib import Path

_PAGE = 4096


class SmallDisk:
    """A mounted tmpfs. `with SmallDisk(folder, megabytes) as disk`."""

    def __init__(self, folder: Path, megabytes: int) -> None:
        self.folder = folder
        self._megabytes = megabytes
        self._filler = folder / "filler"

    def mount(self) -> None:
        """Mount it. Raises RuntimeError where that is not allowed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        options = f"size={self._megabytes}m,mode=0711"
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.folder)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(
                f"{done.stderr.strip()}. The fault suite mounts a tmpfs that it fills up: run it "
                "as root."
            )

    def unmount(self) -> None:
        """Unmount it; what is on it is gone."""
        command = ["umount", "--lazy", str(self.folder)]
        subprocess.run(command, check=False, stderr=subprocess.DEVNULL)

    def fill(self) -> int:
        """Fill all free space, and return how many bytes that was."""
        filled = 0
        with self._filler.open("ab") as filler:
            size = os.statvfs(self.folder).f_bavail * _PAGE
            while size >= _PAGE:
                try:
                    os.posix_fallocate(filler.fileno(), filled, size)
                except OSError:  # Somebody else filled some of it meanwhile.
                    size = size // 2 // _PAGE * _PAGE
                else:
                    filled += size
        return filled

    def release(self) -> None:
        """Give it all back."""
        self._filler.unlink(missing_ok=True)
