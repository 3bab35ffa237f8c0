"""The charts' generated files and tests, and what is said of the operator's conditions."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from microfin_tools.cli.log import KEPT_HOURS

ROOT = Path(__file__).resolve().parents[2]
OPERATOR = ROOT / "operator/src/microfin_operator"
REASON = re.compile(r"[A-Z][a-z]+(?:[A-Z][a-z]+)*")
CONDITIONS = {
    "Ready", "TopicInSync", "WorkersInSync", "RoutingActive", "Connected", "Growing",
    "Degraded", "Paused",
}  # fmt: skip
CHARTS = sorted(path.parent for path in (ROOT / "charts").glob("*/Chart.yaml"))


@pytest.mark.parametrize("generator", ["reference.py", "custom_resource_reference.py"])
def test_what_is_generated_is_up_to_date(generator: str) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "charts" / generator), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_chart_and_the_command_keep_the_log_for_the_same_time() -> None:
    values = yaml.safe_load((ROOT / "charts/microfin/values.yaml").read_text(encoding="utf-8"))
    assert values["trim"]["keepHours"] == KEPT_HOURS
    page = (ROOT / "docs/guide/operating.md").read_text(encoding="utf-8")
    assert f"`--keep-hours`, default {KEPT_HOURS}" in page
    assert f"{KEPT_HOURS // 24} days" in page


def test_helm_waits_longer_than_a_migration_may_run() -> None:
    """Otherwise helm gives up, and people repeat the command, while the migration still runs."""
    values = yaml.safe_load((ROOT / "charts/microfin/values.yaml").read_text(encoding="utf-8"))
    deadline = values["migrations"]["activeDeadlineSeconds"]
    pages = [*ROOT.glob("docs/**/*.md"), *ROOT.glob("charts/*/INTRODUCTION.md")]
    pages += [*ROOT.glob("charts/*/templates/NOTES.txt"), *ROOT.glob("*.md")]
    found = []
    for page in pages:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        commands = re.findall(
            r"^ *helm (?:install|upgrade).* charts/microfin .*$", text, re.MULTILINE
        )
        for command in commands:
            minutes = re.search(r"--timeout (\d+)m", command)
            assert minutes, f"{page.name}: {command.strip()}"
            assert int(minutes[1]) * 60 > deadline, f"{page.name}: {command.strip()}"
        found += commands
    assert len(found) >= 4
    deployed = (ROOT / "deploy/src/microfin_deploy/releases.py").read_text(encoding="utf-8")
    (minutes,) = re.findall(r'"--timeout", "(\d+)m"', deployed)
    assert int(minutes) * 60 > deadline


def reasons() -> Iterator[str]:
    """Yield the reasons that the operator gives: conditions, Events, and the states behind them."""
    for module in ("decide.py", "topic.py", "workers.py", "routing.py"):
        for node in ast.walk(ast.parse((OPERATOR / module).read_text(encoding="utf-8"))):
            match node:
                case ast.Assign(targets=[target], value=value) if "reason" in ast.unparse(target):
                    yield from _words(value)
                case ast.keyword(arg="reason", value=value):
                    yield from _words(value)
                case ast.Call(func=ast.Name(id="Note"), args=[_, reason, *_]):
                    yield from _words(reason)
                # `state` is a variable that holds one of the classes.
                case ast.Call(
                    func=ast.Name(
                        id="InSync" | "Progressing" | "NeedsPerson" | "Unknown" | "state"
                    ),
                    args=[reason, *_],
                ):
                    yield from _words(reason)
                case ast.Call(func=ast.Name(id="Condition"), args=[_, _, reason, *_]):
                    yield from _words(reason)


def _words(value: ast.expr) -> Iterator[str]:
    for node in ast.walk(value):
        if isinstance(node, ast.Constant) and REASON.fullmatch(str(node.value)):
            yield str(node.value)


def test_troubleshooting_names_every_reason_condition_and_phase() -> None:
    page = (ROOT / "docs/guide/troubleshooting.md").read_text(encoding="utf-8")
    described = set(re.findall(r"`(\w+)`", page))
    assert len(set(reasons())) > 30
    assert set(reasons()) - described == set()
    definition = yaml.safe_load(
        (ROOT / "charts/microfin-operator/files/microfinclusters.yaml").read_text(encoding="utf-8")
    )
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    assert set(schema["properties"]["status"]["properties"]["phase"]["enum"]) - described == set()
    headings = set(re.findall(r"^## (.+)$", page, re.MULTILINE))
    assert {name for heading in headings for name in heading.split(", ")} >= CONDITIONS


def test_every_rule_of_the_definition_is_in_its_reference() -> None:
    definition = (ROOT / "charts/microfin-operator/files/microfinclusters.yaml").read_text(
        encoding="utf-8"
    )
    page = (ROOT / "docs/reference/microfincluster.md").read_text(encoding="utf-8")
    rules = len(re.findall(r"^ *- rule:", definition, re.MULTILINE))
    refused = page.partition("## What is refused")[2]
    assert len(re.findall(r"^\| `spec", refused, re.MULTILINE)) == rules


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
