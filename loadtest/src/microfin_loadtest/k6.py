"""k6: finds it on PATH or builds it from its Go module, and runs it."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from microfin_loadtest.errors import LoadImpossible
from microfin_local.platform import REPOSITORY

PROGRAMS: Final = REPOSITORY / ".local" / "cache" / "bin"
"""Where k6 is built."""

MODULE: Final = "go.k6.io/k6@v1.8.1"
QUIET: Final = {
    "K6_NO_USAGE_REPORT": "true",
    "K6_AUTO_EXTENSION_RESOLUTION": "false",
    "K6_NO_COLOR": "true",
}
# One thread of Go is enough: on few cores, idle ones search for work and use the platform's CPU.
# Garbage is collected at five times the used memory instead of twice: 100 MB more for less work.
_CHEAP: Final = {"GOMAXPROCS": "1", "GOGC": "400"}


def find_k6(folder: Path, say: Callable[[str], None]) -> Path:
    """Return a k6 program: the one on PATH, or one that is built in `folder` the first time.

    Raises LoadImpossible if there is none and none can be built.
    """
    if found := shutil.which("k6"):
        return Path(found)
    built = folder.resolve() / "k6"
    if built.exists():
        return built
    go = shutil.which("go")
    if go is None:
        raise LoadImpossible(
            "k6 is not installed, and there is no Go to build it with. Put k6 on PATH, or Go 1.24 "
            "or later."
        )
    say(f"building {MODULE} (a few minutes, the first time only)")
    built.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "GOBIN": str(built.parent)}
    done = subprocess.run([go, "install", MODULE], env=environment, check=False)
    if done.returncode != 0:
        raise LoadImpossible("k6 could not be built; see the error above.")
    return built


class K6Run:
    """One run of k6. `process_id` is the id of k6's process while it runs."""

    def __init__(
        self, program: Path, script: Path, summary: Path, variables: Mapping[str, str]
    ) -> None:
        self._summary = summary
        summary.unlink(missing_ok=True)
        self._process = subprocess.Popen(
            # No address: its control API would need a port that another run may use.
            [program, "run", "--quiet", "--no-thresholds", "--address", "", script],
            stdin=subprocess.DEVNULL,
            stdout=2,  # Progress goes to stderr, so that only the report is on stdout.
            env={**_CHEAP, **os.environ, **QUIET, **variables, "SUMMARY": str(summary)},
        )
        self.process_id = self._process.pid

    def wait(self) -> tuple[dict[str, Any], float]:
        """Return the summary that the script wrote, and k6's CPU seconds.

        Raises LoadImpossible if k6 ended without a summary.
        """
        _, status, usage = os.wait4(self.process_id, 0)
        code = os.waitstatus_to_exitcode(status)
        self._process.returncode = code
        if code != 0 or not self._summary.exists():
            raise LoadImpossible(f"k6 failed (exit code {code}); see the error above.")
        summary: dict[str, Any] = json.loads(self._summary.read_text())
        return summary, usage.ru_utime + usage.ru_stime

    def stop(self) -> None:
        """End k6 if it still runs because the run was interrupted."""
        if self._process.returncode is None:
            self._process.terminate()
            self._process.wait()
