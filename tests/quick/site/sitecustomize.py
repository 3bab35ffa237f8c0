"""Python runs this at its start in the processes that a test of the quick tier starts."""

import runpy
from pathlib import Path

_guard = runpy.run_path(str(Path(__file__).parents[1] / "real_components.py"))
_guard["on_start"](_guard["report_and_refuse"])
