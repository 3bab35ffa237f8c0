"""The first process of a Redis container: it reaps what others leave, and ends with Redis."""

import ctypes
import os
import signal
import subprocess
from pathlib import Path

import pytest

from redis_keeper.kept_cluster import FILES, PASSWORD, running_cluster
from support.waiting import until_blocking

_SUBREAPER = 36


def adopt_orphans() -> None:
    """Let a process adopt the orphans below it, as the first process of a container does."""
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)


def children(pid: int) -> list[str]:
    """Return the names of a process's children, zombies included."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()
    return [Path(f"/proc/{it}/comm").read_text(encoding="utf-8").strip() for it in found]


def run(folder: Path, server: str) -> subprocess.Popen[bytes]:
    """Start the script with a server of the test's own."""
    program = folder / "redis-server"
    program.write_text(f"#!/bin/sh\n{server}\n", encoding="utf-8")
    program.chmod(0o755)
    return subprocess.Popen(
        ["sh", str(FILES / "redis-run.sh")],
        env={"PATH": f"{folder}:{os.environ['PATH']}"},
        preexec_fn=adopt_orphans,  # noqa: PLW1509 - no thread of the test holds a lock
    )


def test_what_a_killed_probe_leaves_behind_is_no_zombie(tmp_path: Path) -> None:
    ended = tmp_path / "ended"
    process = run(tmp_path, f"(sh -c 'sleep 0.2; touch {ended}' &)\nexec sleep 60")
    try:
        until_blocking("the orphan's end", ended.exists)
        until_blocking("no zombie", lambda: children(process.pid) == ["sleep"])
    finally:
        process.terminate()
        process.wait()


@pytest.mark.parametrize(("how", "code"), [("exit 7", 7), ("kill -9 $$", 137)])
def test_it_ends_as_the_server_does(tmp_path: Path, how: str, code: int) -> None:
    assert run(tmp_path, how).wait(timeout=10) == code


def test_it_passes_the_end_on_and_waits_for_it(tmp_path: Path) -> None:
    began, saved = tmp_path / "began", tmp_path / "saved"
    server = f"trap 'sleep 0.3; touch {saved}; exit 0' TERM\ntouch {began}\nsleep 60 & wait"
    process = run(tmp_path, server)
    until_blocking("the server", began.exists)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=10) == 0
    assert saved.exists()


def test_it_has_no_password(real_components: None, tmp_path: Path) -> None:
    """An attacker who controls redis-server may read the environment of the first process."""
    with running_cluster(tmp_path, [f"127.77.41.{pod}" for pod in (1, 2, 3)]) as cluster:
        for pid in cluster.first_processes():
            assert children(pid) == ["redis-server"]
            held = Path(f"/proc/{pid}/environ").read_bytes()
            assert PASSWORD.encode() not in held
            assert b"_PASSWORD" not in held
