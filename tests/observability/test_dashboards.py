"""The dashboards: whole, small, and nothing on top of each other."""

import json
import re
import string
import subprocess
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from microfin_local.programs import find_program
from observability.shipped import DASHBOARDS, alerts, dashboard_expressions

_PLACEHOLDERS = {"namespace", "datasource", "__rate_interval"}


def panels(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["panels"]
    return found


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_every_panel_shows_something(path: Path) -> None:
    for panel in panels(path):
        assert panel["title"]
        assert panel["type"] == "row" or panel["targets"], panel["title"]
    numbers = [panel["id"] for panel in panels(path)]
    assert len(numbers) == len(set(numbers))


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_panels_are_side_by_side(path: Path) -> None:
    places = [panel["gridPos"] for panel in panels(path)]
    assert all(it["x"] + it["w"] <= 24 for it in places)
    for one, other in combinations(places, 2):
        apart = (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )
        assert apart, f"{one} lies over {other}"


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_what_they_ask_for_is_whole(path: Path) -> None:
    for expression in dashboard_expressions(path):
        for opening, closing in ("()", "{}", "[]"):
            assert expression.count(opening) == expression.count(closing), expression
        named = {it[1] for it in re.finditer(r"\$\{?(\w+)\}?", expression)}
        assert named <= _PLACEHOLDERS, expression
        assert set(expression) <= set(string.printable), expression


@pytest.mark.usefixtures("real_components")
@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_prometheus_understands_their_queries(path: Path, tmp_path: Path) -> None:
    """As recording rules, with something in place of Grafana's variables."""
    rules = [
        {"record": f"panel:{number}", "expr": text.replace("$__rate_interval", "5m")}
        for number, text in enumerate(dashboard_expressions(path))
        if not text.startswith("label_values(")
    ]
    file = tmp_path / "rules.yaml"
    file.write_text(json.dumps({"groups": [{"name": path.stem, "rules": rules}]}), "utf-8")
    done = subprocess.run(
        [find_program("promtool"), "check", "rules", str(file)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_their_uids_are_their_own() -> None:
    uids = [json.loads(path.read_text(encoding="utf-8"))["uid"] for path in DASHBOARDS]
    assert len(uids) == len(set(uids)) == 5


def test_alerts_and_dashboards_are_there() -> None:
    """What the other tests go over must not be empty."""
    assert len(alerts()) > 25
    assert all(list(dashboard_expressions(path)) for path in DASHBOARDS)
