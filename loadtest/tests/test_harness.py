"""Scripts, processes, backlog and the command line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from microfin_loadtest.backlog import is_at_rest
from microfin_loadtest.errors import LoadImpossible
from microfin_loadtest.processes import Sampler, cpu_of_tree, group_of, memory_of_tree
from microfin_loadtest.run import Request
from microfin_loadtest.scripts import find_script
from microfin_local.endpoints import Endpoints, write_endpoints
from microfin_local.process_tree import start_time

BURN = "import time\nwhile time.process_time() < 0.3: pass\nprint(flush=True); input()"


def request(duration: str) -> Request:
    return Request("mix.js", 1, duration, Path(), 2, frozenset(), 0)


def harness(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "microfin_loadtest", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


def test_durations() -> None:
    assert [request(text).seconds for text in ("15s", "2m", "1h")] == [15, 120, 3600]
    for text in ("", "0s", "15", "1.5s", "-1s"):
        with pytest.raises(LoadImpossible, match="60s"):
            _ = request(text).seconds


def test_an_unknown_script_is_answered_with_those_there_are() -> None:
    assert find_script("mix.js").exists()
    with pytest.raises(LoadImpossible, match=r"mix\.js"):
        find_script("../mix.js")


def test_without_a_platform_it_says_how_to_start_one(tmp_path: Path) -> None:
    done = harness("run", "mix.js", "--state", str(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    assert "make start" in done.stderr


def test_load_goes_to_this_machine_only(tmp_path: Path) -> None:
    write_endpoints(tmp_path, Endpoints(api="http://192.0.2.1:8000"))
    done = harness("run", "mix.js", "--state", str(tmp_path))
    assert done.returncode == 1
    assert "this machine only" in done.stderr


def test_another_number_of_workers_is_refused(tmp_path: Path) -> None:
    write_endpoints(tmp_path, Endpoints(api="http://127.0.0.1:1", workers=["http://127.0.0.1:2"]))
    done = harness("run", "mix.js", "--state", str(tmp_path), WORKERS="4")
    assert done.returncode == 1
    assert "the running platform has 1" in done.stderr


@pytest.mark.parametrize(
    ("change", "rests"),
    [
        ({}, True),
        ({"lag_records": 1}, False),
        ({"outbox_size": 1}, False),
        ({"state": "retrying"}, False),
    ],
)
def test_rest(change: dict[str, object], rests: bool) -> None:
    status = {"state": "working", "lag_records": 0, "outbox_size": 0, **change}
    assert is_at_rest(status) is rests


def test_groups() -> None:
    assert [group_of(name) for name in ("redis-2", "pgbouncer", "api-0")] == [
        "redis",
        "pgbouncer",
        "api",
    ]


def test_cpu_and_memory_of_a_process_and_its_ended_children(tmp_path: Path) -> None:
    """The child burns before it ends, so that the parent's own time does not show it."""
    parent = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {BURN!r}], input=b'')"
    record = tmp_path / "processes.json"
    record.write_text("[]")
    sampler = Sampler(record)
    sampler.start()
    code = f"try:\n    exec({parent!r})\nfinally:\n    print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.readline()
        started = start_time(process.pid)
        entry = {"name": "worker-0", "process_id": process.pid, "start_time": started}
        record.write_text(json.dumps([entry]))
        usage = sampler.stop()
        process.stdin.write(b"\n")
    # The kernel counts a child's time in ticks of 10 ms, user and system each rounded down.
    assert usage.cpu_seconds["worker"] >= 0.25
    assert usage.cpu_seconds["postgres"] == 0
    assert usage.memory_bytes["worker"] > 0
    assert usage.largest_bytes["worker"] > 0


def test_the_largest_memory_of_a_process_counts_what_it_has_given_back(tmp_path: Path) -> None:
    code = "block = bytearray(64 * 2**20)\ndel block\nprint(flush=True); input()"
    record = tmp_path / "processes.json"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        started = start_time(process.pid)
        entry = {"name": "worker-0", "process_id": process.pid, "start_time": started}
        record.write_text(json.dumps([entry]))
        sampler = Sampler(record)
        sampler.start()
        usage = sampler.stop()
        process.stdin.write(b"\n")
    assert usage.largest_bytes["worker"] > 64 * 2**20


def test_cpu_and_memory_of_a_process_with_its_descendants() -> None:
    """The parent waits for its child, which has the memory and burns the time."""
    child = f"block = bytearray(64 * 2**20)\n{BURN}"
    code = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        cpu, memory = cpu_of_tree(process.pid), memory_of_tree(process.pid)
        process.stdin.write(b"\n")
    assert cpu >= 0.25
    assert memory > 64 * 2**20
