"""Two who start the same platform at one time."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from microfin_local.background import start_detached
from microfin_local.errors import PlatformError
from microfin_local.ownership import owning, starting


def test_the_second_says_who_is_starting_it_and_leaves_its_log_alone(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "platform.log"
    log.parent.mkdir()
    log.write_text("what the first one said")
    said = re.escape(f"being started already (process {os.getpid()})")
    with starting(tmp_path), pytest.raises(PlatformError, match=said):
        start_detached(tmp_path, os.environ, print)
    assert log.read_text() == "what the first one said"


def test_one_that_is_being_started_in_the_foreground_is_not_started_again(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "platform.log"
    with owning(tmp_path), pytest.raises(PlatformError, match="being started already"):
        start_detached(tmp_path, os.environ, print)
    assert not log.exists()


def test_the_command_line_says_it_in_one_sentence(tmp_path: Path) -> None:
    with owning(tmp_path):
        command = [sys.executable, "-m", "microfin_local", "--state", str(tmp_path), "start"]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"The platform in {tmp_path} is being started already")
    assert "Traceback" not in ended.stderr
