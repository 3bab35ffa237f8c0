"""The charts' generated files."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_schemas_and_readmes_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "charts/reference.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
