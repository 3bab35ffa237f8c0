"""A guide's blocks, pasted into one shell as a stranger does."""

import os
import re
import signal
import subprocess
from pathlib import Path

from e2e.kubernetes_cluster import ROOT
from source.shell_blocks import ShellBlock

PATIENCE = 1500
"""Seconds for all blocks together."""


def paste(
    blocks: list[ShellBlock], more: dict[str, str], folder: Path, place: Path = ROOT
) -> tuple[int, str]:
    """Run the blocks in one shell in `place`; return its exit code and output, each command before
    its own.

    The first command that fails ends it. The output goes to a file, because what the guide starts
    in the background would keep a pipe open.
    """
    script, printed = folder / "guide.sh", folder / "output"
    lines = [f"echo '--- line {block.line}'\n{block.commands}" for block in blocks]
    script.write_text("\n".join(lines), encoding="utf-8")
    with printed.open("wb") as output:
        # -v shows each command as it was pasted, before it runs.
        shell = subprocess.Popen(
            ["bash", "-v", "-e", "-o", "pipefail", str(script)],
            cwd=place, env={**os.environ, **more}, stdin=subprocess.DEVNULL,
            stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
        try:
            code = shell.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            code = -signal.SIGALRM
        finally:
            _end(shell)
    return code, printed.read_text(encoding="utf-8", errors="replace")


def _end(shell: subprocess.Popen[bytes]) -> None:
    """End the shell and everything that it started, a forwarded port among it."""
    try:
        os.killpg(shell.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    finally:
        shell.wait()


def by_block(output: str) -> dict[int, str]:
    """Return what each block printed, with its commands, by its line in the guide."""
    parts = re.split(r"^--- line (\d+)\n", output, flags=re.MULTILINE)[1:]
    return {int(line): printed for line, printed in zip(parts[::2], parts[1::2], strict=True)}
