"""The operator as a process outside the cluster, for tests that kill it."""

import asyncio
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import IO

from support.ports import free_port
from support.waiting import until


class OperatorProcess:
    """Starts, stops and kills the operator; its log goes to a file."""

    def __init__(self, namespace: str, log: Path) -> None:
        self._namespace = namespace
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    async def start(self) -> None:
        """Start it and wait until it answers."""
        environment = {
            **os.environ,
            "MICROFIN_OPERATOR_NAMESPACES": self._namespace,
            "MICROFIN_OPERATOR_HTTP_HOST": "127.0.0.1",
            "MICROFIN_OPERATOR_HTTP_PORT": str(self.port),
            "MICROFIN_OPERATOR_LOG_FORMAT": "console",
        }
        with self._log.open("ab") as log:
            self._process = start(environment, log)
        await until("the operator answers", lambda: asyncio.to_thread(self._answers))

    def kill(self) -> None:
        """Kill it without a word."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ask it to end."""
        self._end(signal.SIGTERM)

    def page(self, path: str) -> str:
        """Return an answer of its HTTP."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
            return str(answer.read().decode())

    def memory(self) -> int:
        """Return the bytes that it holds in memory."""
        assert self._process is not None
        pages = Path(f"/proc/{self._process.pid}/statm").read_text(encoding="utf-8").split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            process.wait(timeout=30)

    def _answers(self) -> bool:
        try:
            return self.page("/readyz") == "ready\n"
        except OSError:
            return False


def start(environment: dict[str, str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start the operator."""
    return subprocess.Popen(
        [sys.executable, "-m", "microfin_operator"], env=environment, stdout=log, stderr=log
    )
