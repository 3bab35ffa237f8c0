"""A summary as lib.js writes it, from a run of mix.js at 20 iterations/s for 15 s."""

import json
from pathlib import Path
from typing import Any

from microfin_loadtest.summary import LoadFigures, read_figures

FILE = Path(__file__).with_name("canned_summary.json")


def summary(**changes: dict[str, float]) -> dict[str, Any]:
    """Return the summary, with metrics changed or added."""
    canned: dict[str, Any] = json.loads(FILE.read_text())
    canned["metrics"].update(changes)
    return canned


def figures(**changes: dict[str, float]) -> LoadFigures:
    """Return the summary's figures, with metrics changed or added."""
    return read_figures(summary(**changes))
