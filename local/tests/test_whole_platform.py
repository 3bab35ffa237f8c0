"""The whole platform in the background, as `make start` and the other commands use it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from microfin_local import database_home
from microfin_local.endpoints import Endpoints
from microfin_local.session import shell_session
from support.waiting import until_blocking, until_ready_blocking

_FORM = {"WORKERS": "4", "SHARDS": "2", "API_PROCESSES": "2"}


class CommandLine:
    """`python -m microfin_local` with a state folder of its own."""

    def __init__(self, state: Path) -> None:
        self.state = state

    def __call__(self, *arguments: str, **form: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "microfin_local", "--state", str(self.state), *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=150,
            env={**os.environ, **form},
        )

    @property
    def endpoints(self) -> Endpoints:
        return Endpoints(**json.loads((self.state / "endpoints.json").read_text()))

    def process(self, name: str) -> dict[str, Any]:
        processes = json.loads((self.state / "processes.json").read_text())
        return next(process for process in processes if process["name"] == name)


@pytest.fixture(scope="module")
def started(
    real_components: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[CommandLine]:
    state = tmp_path_factory.mktemp("whole")
    command = CommandLine(state)
    answer = command("start", **_FORM)
    try:
        assert answer.returncode == 0, answer.stdout + answer.stderr
        assert "microfin is ready." in answer.stdout
        yield command
    finally:
        command("stop")
        command("clean")
        database_home.forget(state)


def test_the_session_that_is_printed_moves_money(started: CommandLine) -> None:
    session = shell_session(started.endpoints)
    answer = subprocess.run(
        ["sh", "-eu"], input=session, capture_output=True, text=True, check=False, timeout=60
    )
    lines = [json.loads(line) for line in answer.stdout.splitlines() if line]
    signed_up, deposit, transfer, receiver = lines
    assert "userId" in signed_up
    assert [deposit["balance"], transfer["balance"]] == ["100.00", "74.50"]
    assert receiver["balance"] == "25.50"


def test_it_says_where_everything_is(started: CommandLine) -> None:
    endpoints = started.endpoints
    assert len(endpoints.postgres_shards) == len(endpoints.pgbouncer) == 2
    assert len(endpoints.workers) == 4
    assert len(endpoints.apis) == 2
    assert endpoints.postgres == endpoints.postgres_shards[0]
    assert (started.state / "endpoints.json").stat().st_mode & 0o077 == 0
    assert (started.state / "secrets.json").stat().st_mode & 0o077 == 0


def test_the_environment_file_is_for_a_shell(started: CommandLine) -> None:
    script = '. "$1"; echo "$MICROFIN_DATABASES_DIRECT"'
    answer = subprocess.run(
        ["sh", "-c", script, "sh", str(started.state / "environment")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout.split() == started.endpoints.postgres_shards


def test_status_lists_the_processes(started: CommandLine) -> None:
    answer = started("status")
    assert answer.returncode == 0
    for name in ("nginx", "api-1", "worker-3", "pgbouncer", "postgres-1", "redis-2", "kafka-1"):
        assert name in answer.stdout
    assert started.endpoints.api in answer.stdout


@pytest.mark.parametrize("command", ["kill", "restart"])
def test_a_process_that_was_ended_is_started_again_and_it_says_so(
    started: CommandLine, command: str
) -> None:
    before = started.process("worker-1")
    assert started(command, "worker-1").returncode == 0
    until_blocking(
        "worker-1 is started again",
        lambda: started.process("worker-1")["restarts"] != before["restarts"],
        seconds=60,
    )
    until_ready_blocking(started.endpoints.workers[1])
    said = (started.state / "logs" / "platform.log").read_text().splitlines()
    assert any("worker-1" in line and "starting it again at once" in line for line in said)


def test_a_frozen_process_goes_on(started: CommandLine) -> None:
    assert started("pause", "api-0").returncode == 0
    with pytest.raises(httpx.ReadTimeout):
        httpx.get(f"{started.endpoints.apis[0]}/healthz", timeout=0.5)
    assert started("resume", "api-0").returncode == 0
    until_ready_blocking(started.endpoints.apis[0])


def test_an_unknown_process_is_refused_with_the_known_names(started: CommandLine) -> None:
    answer = started("kill", "worker-9")
    assert answer.returncode == 1
    assert "There is no process called worker-9; there are:" in answer.stderr
    assert "worker-3" in answer.stderr


def test_a_second_start_shows_what_runs(started: CommandLine) -> None:
    answer = started("start")
    assert answer.returncode == 0
    assert "is running already" in answer.stdout


def test_a_second_start_in_another_form_is_refused(started: CommandLine) -> None:
    answer = started("start", WORKERS="6")
    assert answer.returncode == 1
    assert "has 4 partitions" in answer.stderr
    assert "is ready" not in answer.stdout


def test_a_running_platform_is_not_cleaned(started: CommandLine) -> None:
    answer = started("clean")
    assert answer.returncode == 1
    assert "make stop" in answer.stderr
