"""`make grow` on a whole platform of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest


def local(state: Path, *words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "microfin_local", "--state", str(state), *words],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


@pytest.fixture
def started(real_components: None, tmp_path: Path) -> Iterator[Path]:
    """A state folder with a platform of two workers that runs in the background."""
    done = local(tmp_path, "start", WORKERS="2", API_PROCESSES="1")
    assert done.returncode == 0, done.stdout + done.stderr
    yield tmp_path
    local(tmp_path, "stop")
    local(tmp_path, "clean")


def test_it_grows_and_stays_grown(started: Path) -> None:
    refused = local(started, "grow", "--workers", "1")
    assert refused.returncode == 1
    assert "never shrink" in refused.stderr
    done = local(started, "grow", WORKERS="3")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 partitions, 3 workers" in done.stdout
    endpoints = json.loads((started / "endpoints.json").read_text())
    statuses = [httpx.get(f"{url}/status").json() for url in endpoints["workers"]]
    assert [status["partition"] for status in statuses] == [0, 1, 2]
    assert local(started, "stop").returncode == 0
    assert local(started, "start", API_PROCESSES="1").returncode == 0
    endpoints = json.loads((started / "endpoints.json").read_text())
    statuses = [httpx.get(f"{url}/status").json() for url in endpoints["workers"]]
    assert [(it["generation"], it["partition_count"]) for it in statuses] == [(2, 3)] * 3


def test_nothing_to_grow_is_said(tmp_path: Path) -> None:
    done = local(tmp_path, "grow", WORKERS="3")
    assert done.returncode == 1
    assert "not running" in done.stderr
