"""Checks of the documents: their links and names lead somewhere, generated pages are current."""

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from prometheus_client.metrics import MetricWrapperBase

from microfin.ledger import wire
from microfin.ledger.operation import Kind, Leg
from microfin.ledger.wire import Command
from microfin.process import renewed_tls, silence
from microfin.process.phase_seconds import PhaseSeconds
from microfin.process.settings_reference import settings_markdown
from microfin.redis import state
from microfin_api import metrics as api_metrics
from microfin_local.endpoints import Endpoints
from microfin_local.session import shell_session
from microfin_worker import metrics as worker_metrics
from source.markdown_pages import DOCUMENTS, REPOSITORY, name_of

DOCS = REPOSITORY / "docs"
LINK = re.compile(r"(?<!!)\[[^\]\n]*(?:\n[^\]\n]*)?\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)
METRIC_ROW = re.compile(r"^\| `(microfin_\w+)` \| (\w+) \| ([^|]*)\|", re.MULTILINE)


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def without_code(text: str) -> str:
    return re.sub(r"```.*?```", "", text, flags=re.DOTALL)


def anchor(heading: str) -> str:
    """Return the anchor that a heading gets where Markdown is shown."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def relative_links(path: Path) -> Iterator[tuple[Path, str]]:
    for target in LINK.findall(without_code(text_of(path))):
        if "://" not in target and not target.startswith("mailto:"):
            file, _, fragment = target.partition("#")
            yield (path.parent / file if file else path), fragment


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_relative_links_lead_somewhere(path: Path) -> None:
    for target, fragment in relative_links(path):
        assert target.exists(), f"{name_of(path)} links to {target}"
        if fragment and target.suffix == ".md":
            anchors = {
                anchor(heading) for heading in HEADING.findall(without_code(text_of(target)))
            }
            assert fragment in anchors, f"{name_of(path)} links to #{fragment} of {target.name}"


@functools.cache
def known_tests() -> dict[str, set[str]]:
    return {
        name_of(path): {
            node.name
            for node in ast.walk(ast.parse(text_of(path)))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            and node.name.startswith("test_")
        }
        for folder in ("services", "local", "operator", "tests")
        for path in (REPOSITORY / folder).rglob("test_*.py")
    }


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_tests_that_are_named_exist(path: Path) -> None:
    known = known_tests()
    functions = set().union(*known.values())
    text = without_code(text_of(path))
    for file, function in re.findall(r"`([\w/.]+\.py)::(test_\w+)`", text):
        assert function in known.get(file, set()), f"{name_of(path)}: {file}::{function}"
    for function in re.findall(r"`(test_\w+)`", text):
        assert function in functions, f"{name_of(path)}: {function}"


def test_methods_that_are_named_exist() -> None:
    known = {
        f"{owner.name}.{member.name}"
        for folder in ("services", "local", "tests")
        for path in (REPOSITORY / folder).rglob("*.py")
        for owner in ast.walk(ast.parse(text_of(path)))
        if isinstance(owner, ast.ClassDef)
        for member in owner.body
        if isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    for path in DOCUMENTS:
        for method in re.findall(r"`([A-Z]\w+\.[a-z_]\w*)(?:\([^`]*\))?`", text_of(path)):
            assert method in known, f"{name_of(path)}: {method}"


def test_settings_are_current() -> None:
    current = settings_markdown()
    assert text_of(DOCS / "reference" / "settings.md") == current, (
        "Renew it: .venv/bin/python -m microfin.process.settings_reference docs/reference"
    )


def test_metrics_are_current() -> None:
    declared = {
        _declared(metric)
        for module in (worker_metrics, api_metrics, state, renewed_tls, silence)
        for metric in vars(module).values()
        if isinstance(metric, MetricWrapperBase | PhaseSeconds)
    }
    documented = {
        (name, kind, tuple(re.findall(r"`(\w+)`", labels)))
        for name, kind, labels in METRIC_ROW.findall(text_of(DOCS / "reference" / "metrics.md"))
    }
    assert documented == declared


def _declared(metric: MetricWrapperBase | PhaseSeconds) -> tuple[str, str, tuple[str, ...]]:
    family = next(iter(metric.describe()))
    name = f"{family.name}_total" if family.type == "counter" else family.name
    return name, family.type, tuple(metric._labelnames)


def test_the_phases_are_described() -> None:
    """Each phase in the page's table and in the guide's, and none that is gone."""
    phases = {
        sample.labels["phase"]
        for metric in (api_metrics.PHASE_SECONDS, worker_metrics.PHASE_SECONDS)
        for sample in next(iter(metric.collect())).samples
    }
    tables = (
        text_of(DOCS / "reference" / "metrics.md").partition("## Phases")[2],
        text_of(DOCS / "guide" / "operating.md").partition("## Where the time goes")[2],
    )
    for table in tables:
        section = table.partition("\n## ")[0]
        rows = set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE))
        assert rows == phases - {"wait"}


def test_the_wire_formats_example_is_what_is_written() -> None:
    """The same bytes as in services/core/tests/test_wire.py."""
    page = text_of(DOCS / "reference" / "wire-format.md")
    example = re.search(r"```json\n(.*)\n```", page)
    assert example is not None
    value = example[1].encode()
    command = wire.decode(b"505945916219", value)
    assert wire.encode(command) == value
    assert command.kind == "deposit"


def test_every_field_of_a_command_is_described() -> None:
    page = text_of(DOCS / "reference" / "wire-format.md")
    fields = page.partition("## Fields")[2].partition("\n## ")[0]
    described = re.findall(r"^\| `(\w+)` \|", fields, re.MULTILINE)
    assert described == ["v", *Command.__struct_fields__]
    for name in (*get_args(Kind), *get_args(Leg)):
        assert f"`{name}`" in fields


def test_every_decision_record_is_in_the_index() -> None:
    records = sorted((DOCS / "adr").glob("[0-9][0-9][0-9][0-9]-*.md"))
    numbers = [int(path.name[:4]) for path in records]
    assert numbers == list(range(1, len(records) + 1))
    index = text_of(DOCS / "adr" / "README.md")
    for number, path in zip(numbers, records, strict=True):
        title = text_of(path).splitlines()[0].removeprefix(f"# {number}. ")
        assert f"[{path.name[:4]}]({path.name}) {title}" in index


def test_the_readmes_commands_are_in_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", text_of(REPOSITORY / "Makefile"), re.MULTILINE))
    assert {"run", "test"} <= targets
    for path in DOCUMENTS:
        for target in re.findall(r"(?:^|`)make ([a-z0-9-]+)", text_of(path), re.MULTILINE):
            assert target in targets, f"{name_of(path)}: make {target}"


def test_the_readmes_session_is_the_one_that_the_platform_prints() -> None:
    printed = shell_session(Endpoints(api="http://127.0.0.1:8000"))
    assert printed in text_of(REPOSITORY / "README.md")


def test_the_readme_is_short_and_leads_to_the_map() -> None:
    text = text_of(REPOSITORY / "README.md")
    assert len(text.splitlines()) <= 75
    assert DOCS / "README.md" in {
        it.resolve() for it, _ in relative_links(REPOSITORY / "README.md")
    }


PAGES = [
    path
    for path in sorted(DOCS.rglob("*.md"))
    if path.parent.name not in ("adr", "runbooks") and path != DOCS / "README.md"
]


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_every_page_can_be_reached_from_the_map(path: Path) -> None:
    linked = {target.resolve() for target, _ in relative_links(DOCS / "README.md")}
    assert path in linked
