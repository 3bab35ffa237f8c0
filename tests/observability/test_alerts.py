"""The alerts: right rules, tested by promtool, each with a runbook."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from microfin_local.programs import find_program
from observability.shipped import RULE_TESTS, RULES, RUNBOOKS, alerts

# In the order of the files: the index of runbooks has the same.
ALERTS = {alert["alert"]: alert for alert in alerts()}
SECTIONS = ["Meaning", "Impact", "Diagnosis", "Mitigation"]


def promtool(*arguments: str) -> None:
    done = subprocess.run(
        [find_program("promtool"), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.usefixtures("real_components")
@pytest.mark.parametrize("path", RULES, ids=lambda path: path.parts[-3])
def test_promtool_accepts_the_rules(path: Path) -> None:
    promtool("check", "rules", str(path))


@pytest.mark.usefixtures("real_components")
@pytest.mark.parametrize("path", RULE_TESTS, ids=lambda path: path.parts[-4])
def test_the_alerts_fire_when_they_should(path: Path) -> None:
    promtool("test", "rules", str(path))


def cases() -> list[dict[str, Any]]:
    return [
        case
        for path in RULE_TESTS
        for test in yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]
        for case in test["alert_rule_test"]
    ]


@pytest.mark.parametrize("name", ALERTS)
def test_each_is_tested_both_ways(name: str) -> None:
    expected = [len(it.get("exp_alerts", ())) for it in cases() if it["alertname"] == name]
    assert 0 in expected, "no test of when it does not fire"
    assert any(expected), "no test of when it fires"


def test_no_name_is_given_twice() -> None:
    assert len(ALERTS) == len(alerts())


@pytest.mark.parametrize("name", ALERTS)
def test_each_says_how_bad_it_is_and_what_to_do(name: str) -> None:
    alert = ALERTS[name]
    assert alert["labels"] in ({"severity": "critical"}, {"severity": "warning"})
    assert sorted(alert["annotations"]) == ["description", "runbook_url", "summary"]
    base, _, page = alert["annotations"]["runbook_url"].rpartition("/")
    assert base == "https://github.com/microfin/microfin/blob/main/docs/runbooks"
    runbook = (RUNBOOKS / page).read_text(encoding="utf-8")
    assert f"`{name}`" in runbook, f"{page} does not name the alert"
    found = re.findall(r"^## (.+)$", runbook, re.MULTILINE)
    assert found[: len(SECTIONS)] == SECTIONS


def test_the_index_lists_each_with_its_runbook() -> None:
    index = (RUNBOOKS / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| \[([^]]+)\]\((\S+)\) \|$", index, re.MULTILINE)
    for name, severity, title, page in rows:
        assert ALERTS[name]["labels"]["severity"] == severity
        assert ALERTS[name]["annotations"]["runbook_url"].endswith(f"/{page}")
        assert (RUNBOOKS / page).read_text(encoding="utf-8").startswith(f"# {title}\n")
    assert [row[0] for row in rows] == [alert["alert"] for alert in alerts()]


def test_no_page_is_left_over() -> None:
    index = (RUNBOOKS / "README.md").read_text(encoding="utf-8")
    for path in RUNBOOKS.glob("[a-z]*.md"):
        assert f"({path.name})" in index, f"{path.name} is not in the index"
