"""Real supervisors, ended in every way there is: none may leave a process behind."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from microfin_local import database_home, process_tree
from microfin_local.supervisor import read_record
from support.waiting import until_blocking

_SUPERVISOR = """
import asyncio, sys
from pathlib import Path
from microfin_local.configuration import Configuration
from microfin_local.foreground import run_until_stopped

configuration = Configuration(
    state=Path(sys.argv[1]), random_ports=True, components=frozenset(sys.argv[2].split(","))
)
asyncio.run(run_until_stopped(configuration, print, lambda _: print("ready", flush=True)))
"""


@pytest.fixture
def state(real_components: None, tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    database_home.forget(tmp_path)


def _start(state: Path, parts: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", _SUPERVISOR, str(state), parts]
    supervisor = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert supervisor.stdout is not None
    assert any(line == "ready\n" for line in supervisor.stdout), "the supervisor did not start"
    return supervisor


def _family(state: Path) -> dict[int, int]:
    """Return every process of the platform, children included, with its start time."""
    processes = [process["process_id"] for process in read_record(state / "processes.json")]
    members = [member for process in processes for member in process_tree.descendants(process)]
    started = {member: process_tree.start_time(member) for member in members}
    return {member: start for member, start in started.items() if start is not None}


def _alive(family: dict[int, int]) -> list[int]:
    return [member for member, start in family.items() if process_tree.is_alive(member, start)]


def _until_gone(family: dict[int, int]) -> None:
    until_blocking("no process outlives its supervisor", lambda: not _alive(family), seconds=20)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stopped_supervisor_stops_everything_first(state: Path, number: signal.Signals) -> None:
    supervisor = _start(state, "postgres,pgbouncer,redis")
    family = _family(state)
    assert len(family) > 5  # PostgreSQL has children of its own.
    assert json.loads((state / "endpoints.json").read_text())["postgres"]
    supervisor.send_signal(number)
    output, _ = supervisor.communicate(timeout=60)
    assert supervisor.returncode == 0, output
    assert not _alive(family)
    assert not (state / "endpoints.json").exists()
    assert not (state / "environment").exists()


def test_everything_ends_with_a_killed_supervisor(state: Path) -> None:
    supervisor = _start(state, "postgres,pgbouncer,redis,kafka")
    family = _family(state)
    supervisor.kill()
    supervisor.communicate(timeout=60)
    _until_gone(family)


def test_what_was_frozen_when_its_supervisor_was_killed_is_ended_at_the_next_start(
    state: Path,
) -> None:
    supervisor = _start(state, "postgres")
    family = _family(state)
    for member in family:
        os.kill(member, signal.SIGSTOP)
    supervisor.kill()
    supervisor.communicate(timeout=60)
    again = _start(state, "postgres")
    _until_gone(family)
    again.send_signal(signal.SIGINT)
    again.communicate(timeout=60)


def test_a_second_supervisor_is_refused(state: Path) -> None:
    supervisor = _start(state, "redis")
    command = [sys.executable, "-m", "microfin_local", "--state", str(state), "run"]
    second = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert second.returncode == 1
    assert f"is running already (process {supervisor.pid})" in second.stderr
    supervisor.send_signal(signal.SIGINT)
    supervisor.communicate(timeout=60)


def test_a_start_that_fails_leaves_nothing_running(state: Path) -> None:
    (state / "postgres-0").mkdir()
    (state / "postgres-0" / "PG_VERSION").write_text("0\n")
    home = database_home.choose_home(state)
    home.make_folder("postgres-0")
    home.write(home.folder / "postgres-0" / "PG_VERSION", "0\n")
    command = [sys.executable, "-c", _SUPERVISOR, str(state), "postgres,redis"]
    supervisor = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert supervisor.returncode == 1
    assert "postgres-0 is not ready" in supervisor.stderr
    assert "last lines of" in supervisor.stderr
    assert _family(state) == {}


def test_changed_shards_are_refused_with_a_sentence(state: Path) -> None:
    (state / "platform.json").write_text('{"workers": 4, "shards": 1, "brokers": 1}')
    command = [sys.executable, "-m", "microfin_local", "--state", str(state), "start"]
    environment = {**os.environ, "SHARDS": "2"}
    answer = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=60, env=environment
    )
    assert answer.returncode == 1
    assert "SHARDS=1 and cannot change to 2" in answer.stdout + answer.stderr
    assert "make clean" in answer.stdout + answer.stderr
    assert "Traceback" not in answer.stdout + answer.stderr
