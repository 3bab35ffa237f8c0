"""What the charts bring: alerts with tests and runbooks, dashboards; and whose metrics they use."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).resolve().parents[2]
RULES: Final = sorted(ROOT.glob("charts/*/files/alerts*.yaml"), key=lambda path: path.parts[-3])
RULE_TESTS: Final = sorted(ROOT.glob("charts/*/tests/alerts/*.yaml"))
DASHBOARDS: Final = sorted(ROOT.glob("charts/*/dashboards/*.json"))
RUNBOOKS: Final = ROOT / "docs/runbooks"
REFERENCE: Final = ROOT / "docs/reference/metrics.md"

_ROW: Final = re.compile(r"^\| `(\w+)` \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
_GROUPING: Final = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)")
_WORDS: Final = {"and", "or", "unless", "bool", "offset"}


def alerts() -> list[dict[str, Any]]:
    """Return the alerts of all charts."""
    groups = [
        group
        for path in RULES
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
    ]
    return [rule for group in groups for rule in group["rules"]]


def dashboard_expressions(path: Path) -> Iterator[str]:
    """Yield what a dashboard asks Prometheus for."""
    dashboard = json.loads(path.read_text(encoding="utf-8"))
    for panel in dashboard["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["query"]


def metrics_in(expression: str) -> set[str]:
    """Return the metrics that a PromQL expression, or Grafana's `label_values`, names."""
    text = re.sub(r"\blabel_values\((.*), \w+\)$", r"\1", expression.strip())
    text = re.sub(r'"(?:[^"\\]|\\.)*"', '""', text)
    text = re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", text)
    text = _GROUPING.sub("", text)
    return set(re.findall(r"\b[a-zA-Z_:][\w:]*\b(?!\s*\()", text)) - _WORDS


def expressions() -> list[str]:
    """Return what all alerts and dashboards ask Prometheus for."""
    asked = [alert["expr"] for alert in alerts()]
    for path in DASHBOARDS:
        asked += dashboard_expressions(path)
    return asked


def played_series() -> list[str]:
    """Return the series that the alerts' tests play."""
    tests = [
        test
        for path in RULE_TESTS
        for test in yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]
    ]
    return [series["series"] for test in tests for series in test["input_series"]]


def selections(text: str) -> Iterator[tuple[str, set[str]]]:
    """Yield each metric that is followed by labels in braces, and the labels."""
    for name, matchers in re.findall(r"\b(\w+)\{([^}]*)\}", text):
        yield name, set(re.findall(r'(\w+)\s*[=!]=?~?\s*"', matchers))


def used_metrics() -> set[str]:
    """Return every metric that an alert or a dashboard names."""
    return set().union(*map(metrics_in, expressions()))


def metrics_of_others() -> dict[str, str]:
    """Return the reference's table of other components' metrics: by name, what exports it."""
    text = REFERENCE.read_text(encoding="utf-8").partition("## Metrics of other components")[2]
    return {name: source for name, source, _ in _ROW.findall(text)}


def reported(page: str) -> set[str]:
    """Return the names on a page of metrics; those of a family too that has no series yet."""
    names = set(re.findall(r"^([a-zA-Z_:][\w:]*)[ {]", page, re.MULTILINE))
    for name, kind in re.findall(r"^# TYPE (\S+) (\w+)$", page, re.MULTILINE):
        suffixes = ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)
        names |= {name + suffix for suffix in suffixes}
    return names
