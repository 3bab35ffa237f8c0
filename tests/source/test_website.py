"""The site of the documentation: its navigation names each page once; its links lead somewhere."""

import importlib.util
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
WEBSITE = ROOT / "website"


class _Settings(yaml.SafeLoader):
    """Reads mkdocs.yml, whose tags for Python objects only mkdocs needs."""


_Settings.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)


def settings() -> dict[str, Any]:
    text = (WEBSITE / "mkdocs.yml").read_text(encoding="utf-8")
    read: dict[str, Any] = yaml.load(text, Loader=_Settings)  # noqa: S506 - a safe loader
    return read


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    description = importlib.util.spec_from_file_location("website_hooks", WEBSITE / "hooks.py")
    assert description is not None
    assert description.loader is not None
    module = importlib.util.module_from_spec(description)
    description.loader.exec_module(module)
    return module


def pages_of(lines: list[Any]) -> Iterator[str]:
    for line in lines:
        if isinstance(line, dict):
            for below in line.values():
                yield from pages_of(below)
        else:
            yield line


def test_the_navigation_names_each_page_once(hooks: ModuleType) -> None:
    config = SimpleNamespace(nav=settings()["nav"], docs_dir=str(DOCS))
    named = Counter(pages_of(hooks.on_config(config).nav))
    assert [page for page, times in named.items() if times > 1] == []
    assert set(named) == {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}


def test_a_folders_readme_comes_first(hooks: ModuleType) -> None:
    config = SimpleNamespace(nav=["adr/*.md"], docs_dir=str(DOCS))
    pages = hooks.on_config(config).nav
    assert pages[:2] == ["adr/README.md", "adr/0001-place-in-the-log.md"]


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ("../../charts/microfin/README.md#values", "/blob/main/charts/microfin/README.md#values"),
        ("../../services/core", "/tree/main/services/core"),
        ("../adr/README.md", None),
        ("clients.md#retries", None),
    ],
)
def test_links_out_of_docs_lead_into_the_repository(
    hooks: ModuleType, link: str, expected: str | None
) -> None:
    file = SimpleNamespace(abs_src_path=str(DOCS / "guide/clients.md"), src_uri="guide/clients.md")
    config = SimpleNamespace(docs_dir=str(DOCS))
    shown = hooks.on_page_markdown(
        f"See [it]({link}).\n\n```sh\n# [it]({link})\n```\n", page=SimpleNamespace(file=file),
        config=config,
    )  # fmt: skip
    target = hooks.PUBLIC + expected if expected else link
    assert shown == f"See [it]({target}).\n\n```sh\n# [it]({link})\n```\n"


def test_it_needs_no_network_and_dead_links_are_errors() -> None:
    site = settings()
    assert site["theme"]["font"] is False
    assert {"search", "offline"} <= set(site["plugins"])
    for script in site["extra"]["polyfills"]:
        assert (WEBSITE / "theme" / script).is_file()
    assert set(site["validation"].values()) == {"warn"}
    build = (WEBSITE / "build.sh").read_text(encoding="utf-8")
    assert "build --strict" in build
    assert "--require-hashes" in build
