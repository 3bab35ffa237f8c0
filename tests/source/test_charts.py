"""The charts' generated files, and that each template has tests beside it."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CHARTS = sorted(path.parent for path in (ROOT / "charts").glob("*/Chart.yaml"))


def test_schemas_and_readmes_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "charts/reference.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def templates(chart: Path) -> set[str]:
    """Return the templates that render something; helpers begin with an underscore."""
    folder = chart / "templates"
    found = [path for path in folder.rglob("*") if path.suffix in {".yaml", ".txt"}]
    return {path.relative_to(folder).as_posix() for path in found if path.name[0] != "_"}


def covered(chart: Path) -> Iterator[str]:
    """Yield the templates that the chart's tests (`charts/unittest.sh` runs them) are about."""
    for path in (chart / "tests").glob("*_test.yaml"):
        suite = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert suite["tests"], f"{path.name} tests nothing"
        yield from suite["templates"]


@pytest.mark.parametrize("chart", CHARTS, ids=lambda chart: chart.name)
def test_each_template_has_a_test_file(chart: Path) -> None:
    untested = templates(chart) - set(covered(chart))
    assert not untested, f"write charts/{chart.name}/tests/NAME_test.yaml for {sorted(untested)}"
