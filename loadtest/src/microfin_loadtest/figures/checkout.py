"""A commit's files, platform and harness: each commit is loaded by its own harness."""

import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from microfin_loadtest.errors import LoadImpossible
from microfin_local.endpoints import Endpoints, read_endpoints
from microfin_local.platform import REPOSITORY

FOLDER: Final = REPOSITORY / ".local" / "figures"
_PAGE: Final = Path("docs/guide/load-testing.md")
_EXPORT = re.compile(r"^export (MICROFIN_.*)$", re.MULTILINE)
API_PROCESSES: Final = 1


@dataclass(frozen=True)
class Checkout:
    """A commit in `folder`, whose platform has its state in `state`. `programs` is k6's folder."""

    commit: str
    folder: Path
    state: Path
    programs: Path

    @contextmanager
    def platform(self, workers: int) -> Iterator[Endpoints]:
        """Start a new platform of this commit, and stop it afterwards."""
        self.stop()
        self._local("clean", workers)
        try:
            yield self._start(workers)
        finally:
            self.stop()

    def restart(self, workers: int) -> Endpoints:
        """Stop the platform, and start it again with its data."""
        self.stop()
        return self._start(workers)

    def _start(self, workers: int) -> Endpoints:
        self._local("start", workers)
        endpoints = read_endpoints(self.state)
        if endpoints is None:
            raise LoadImpossible(f"The platform in {self.state} was stopped.")
        return endpoints

    def stop(self) -> None:
        """Stop the platform if it runs."""
        self._local("stop", None)

    def load(self, script: str, rate: int, seconds: int, *more: str) -> dict[str, Any]:
        """Load the running platform; return the harness's report, valid or not.

        `more` are options that not every commit's harness has.
        """
        return self._report(
            *("run", script, "--rate", str(rate), "--duration", f"{seconds}s"),
            *("--results", str(self.state / "results.jsonl")),
            *more,
        )

    def fill(self, operations: int, accounts: int, volume: int | None) -> dict[str, Any]:
        """Give the running platform a past, with `volume` outcomes in a volume; return what was
        made."""
        numbers = {"--operations": operations, "--accounts": accounts}
        if volume is not None:
            numbers["--outcomes-per-volume"] = volume
        return self._report("fill", *(str(one) for pair in numbers.items() for one in pair))

    def overload(self, peak: int, rate: int, seconds: int) -> dict[str, Any]:
        """Overload the running platform; return the harness's report, valid or not."""
        numbers = {"--peak": peak, "--rate": rate, "--seconds": seconds}
        return self._report("overload", *(str(one) for pair in numbers.items() for one in pair))

    def audit(self, endpoints: Endpoints) -> str:
        """Return what this commit's audit says about its platform at rest; '' if it is clean."""
        program = self.folder / ".venv" / "bin" / "microfin"
        done = self._run([str(program), "audit", "--at-rest"], endpoints.environment)
        return "" if done.returncode == 0 else done.stdout

    def audit_since(self, endpoints: Endpoints) -> dict[str, Any]:
        """Audit what came after the last such audit, everything if there was none; return its
        report, clean or not."""
        program = self.folder / ".venv" / "bin" / "microfin"
        command = [str(program), "audit", "--at-rest", "--since", "--json"]
        done = self._run(command, endpoints.environment)
        if not done.stdout.startswith("{"):
            raise LoadImpossible(f"The audit made no report; see {self.log}.")
        report: dict[str, Any] = json.loads(done.stdout)
        return report

    def _report(self, *arguments: str) -> dict[str, Any]:
        python = str(self.folder / ".venv" / "bin" / "python")
        command = [python, "-m", "microfin_loadtest", *arguments, "--state", str(self.state)]
        done = self._run(command, self._environment(None))
        lines = done.stdout.splitlines()
        if not lines or not lines[-1].startswith("{"):
            raise LoadImpossible(f"{' '.join(arguments)} made no report; see {self.log}.")
        report: dict[str, Any] = json.loads(lines[-1])
        return report

    def _local(self, command: str, workers: int | None) -> None:
        python = str(self.folder / ".venv" / "bin" / "python")
        arguments = [python, "-m", "microfin_local", "--state", str(self.state), command]
        if self._run(arguments, self._environment(workers)).returncode != 0:
            raise LoadImpossible(
                f"The platform of {self.commit} did not {command}; see {self.log}."
            )

    @property
    def log(self) -> Path:
        """The file with what the commands printed."""
        return FOLDER / f"{self.commit}.log"

    def _environment(self, workers: int | None) -> dict[str, str]:
        form = {} if workers is None else {"WORKERS": str(workers)}
        page = (self.folder / _PAGE).read_text()
        return {**environment_of(page), "API_PROCESSES": str(API_PROCESSES), **form}

    def _run(
        self, command: list[str], environment: Mapping[str, str]
    ) -> "subprocess.CompletedProcess[str]":
        # Settings of the shell would change one commit's platform and not the other's.
        kept = {
            name: text
            for name, text in os.environ.items()
            if not name.startswith(("MICROFIN_", "PYTHON")) and name not in ("WORKERS", "SHARDS")
        }
        kept["PATH"] = os.pathsep.join([str(self.programs), kept.get("PATH", "")])
        with self.log.open("a") as log:
            log.write(f"$ {' '.join(command)}\n")
            log.flush()
            done = subprocess.run(
                command,
                cwd=self.folder,
                env={**kept, **environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                check=False,
            )
            log.write(done.stdout)
        return done


def environment_of(page: str) -> dict[str, str]:
    """Return the settings with which a commit's page on load testing starts the platform for the
    mix at the predecessor's hash cost.

    Raises LoadImpossible if the page has none.
    """
    words = " ".join(_EXPORT.findall(page)).split()
    settings = dict(word.split("=", 1) for word in words if word.startswith("MICROFIN_"))
    if "MICROFIN_ARGON2_MEMORY" not in settings:
        raise LoadImpossible(
            f"{_PAGE} has no line `export MICROFIN_ARGON2_MEMORY=…`: it is not known how to start "
            "that commit's platform."
        )
    return settings


def this_checkout(commit: str, programs: Path) -> Checkout:
    """Return the files that are here, with a platform of their own."""
    return Checkout(commit, REPOSITORY, FOLDER / "state", programs)


def checkout_of(name: str, programs: Path) -> Checkout:
    """Return a clone at a commit, made and set up if need be.

    Raises LoadImpossible if there is no such commit, or its setup fails.
    """
    commit = _git(REPOSITORY, "rev-parse", "--short", f"{name}^{{commit}}")
    folder = FOLDER / commit
    found = Checkout(commit, folder, FOLDER / f"state-{commit}", programs)
    if not (folder / ".git").exists():
        _git(REPOSITORY, "clone", "--quiet", "--no-checkout", str(REPOSITORY), str(folder))
    _git(folder, "checkout", "--quiet", "--detach", _git(REPOSITORY, "rev-parse", commit))
    (folder / ".local").mkdir(exist_ok=True)
    cache = folder / ".local" / "cache"
    if not cache.exists():
        # Its folders have versions in their names, so commits can share them.
        cache.symlink_to(REPOSITORY / ".local" / "cache")
    done = subprocess.run(["make", "setup"], cwd=folder, stdout=2, check=False)  # noqa: S607
    if done.returncode != 0:
        raise LoadImpossible(f"`make setup` failed in {folder}; see the error above.")
    return found


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LoadImpossible(f"git {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout.strip()
