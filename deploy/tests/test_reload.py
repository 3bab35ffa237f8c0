"""images/reload.py: a module restarts when its sources change, and ends on a signal."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from support.waiting import until_blocking

ROOT = Path(__file__).resolve().parents[2]


def _until_text(file: Path, text: str) -> None:
    until_blocking(f"{file.name} is {text}", lambda: file.is_file() and file.read_text() == text)


def test_a_change_restarts_it_and_a_wrong_source_does_not_end_it(tmp_path: Path) -> None:
    installed, folder, output = tmp_path / "installed", tmp_path / "source", tmp_path / "output"
    package = installed / "microfin"
    package.mkdir(parents=True)
    package.joinpath("__init__.py").touch()
    source = "import pathlib, time\npathlib.Path({!r}).write_text({!r})\ntime.sleep(60)\n"
    package.joinpath("thing.py").write_text(source.format(str(output), "first"))
    environment = {
        **os.environ,
        "PYTHONPATH": str(installed),
        "MICROFIN_RELOAD_FOLDER": str(folder),
    }
    command = [sys.executable, str(ROOT / "images/reload.py"), "microfin.thing"]
    process = subprocess.Popen(command, env=environment)
    try:
        _until_text(output, "first")
        changed = folder / "microfin/thing.py"
        changed.write_text("this is no Python")
        time.sleep(1.5)
        assert process.poll() is None
        changed.write_text(source.format(str(output), "second"))
        _until_text(output, "second")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)
    assert process.returncode != 0  # the module's own end: by a signal
