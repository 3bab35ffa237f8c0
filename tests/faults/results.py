"""Results of rounds: one JSON object a line, and evidence where a round found something."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec

from faults.finding import Finding
from faults.measuring import Measured
from faults.playing import Round
from faults.schedule import Plan

REPOSITORY = Path(__file__).resolve().parents[2]


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What is recorded of every round."""

    seed: int
    round: int
    commit: str
    faults: str
    plan: Plan
    measured: Measured
    findings: list[Finding]
    seconds: float


def result_of(played: Round, seed: int, commit: str) -> Result:
    """Return what is recorded of a round."""
    return Result(
        seed=seed,
        round=played.plan.round,
        commit=commit,
        faults=played.plan.names,
        plan=played.plan,
        measured=played.measured,
        findings=played.findings,
        seconds=round(played.seconds, 2),
    )


def append(path: Path, result: Result) -> None:
    """Add a result to the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(msgspec.json.encode(result) + b"\n")


def load(path: Path) -> list[Result]:
    """Return all results of the file; the last one of each round counts."""
    return list({(it.seed, it.round): it for it in _lines(path)}.values())


def _lines(path: Path) -> Iterator[Result]:
    if not path.exists():
        return
    for line in path.read_bytes().splitlines():
        yield msgspec.json.decode(line, type=Result)


def keep_evidence(folder: Path, played: Round, seed: int, logs: Path) -> Path:
    """Write down what a round found, what its clients received, the ledger, and all logs."""
    place = folder / f"seed-{seed}-round-{played.plan.round}"
    if place.exists():
        shutil.rmtree(place)
    place.mkdir(parents=True)
    for name, content in (
        ("plan", played.plan),
        ("findings", played.findings),
        ("history", played.history),
        ("ledger", played.ledger),
        ("measured", played.measured),
    ):
        text = msgspec.json.format(msgspec.json.encode(content), indent=1)
        (place / f"{name}.json").write_bytes(text)
    shutil.copytree(logs, place / "logs")
    return place


def commit() -> str:
    """Return the commit that is checked out, with a plus where files differ from it."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(REPOSITORY), *arguments]
        return subprocess.run(command, check=False, capture_output=True, text=True).stdout.strip()

    changed = "+" if git("status", "--porcelain", "--untracked-files=no") else ""
    return (git("rev-parse", "--short=12", "HEAD") or "unknown") + changed
