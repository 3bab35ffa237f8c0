"""The images' pins: each image holds what its process imports, and the API's holds no tool."""

import re

import pytest

from source.image_pins import ROOT, TOOLS_ONLY, imported, needed_by, pins

MODULES = {
    "api": ["microfin_api.__main__"],
    "worker": ["microfin_worker.__main__", "microfin_tools.__main__"],
    "operator": ["microfin_operator.__main__"],
}
"""What runs in each image."""

NAMED = {
    "uvloop": ("services/api/src/microfin_api/__main__.py", 'loop="uvloop"'),
    "psycopg": ("services/tools/src/microfin_tools/migrations/run.py", "postgresql+psycopg"),
    "psycopg-binary": ("services/tools/pyproject.toml", "psycopg[binary]"),
}
"""Packages that no module imports, because a library imports them by a name: where the name is."""


def test_the_api_has_no_migration_tool_no_rich_and_no_command_line() -> None:
    assert not TOOLS_ONLY & pins("api").keys()
    assert pins("worker").keys() >= TOOLS_ONLY, "these are no names of packages any more"
    stage = re.search(
        r"^FROM build AS build-api$(.*?)^FROM ", dockerfile(), re.MULTILINE | re.DOTALL
    )
    assert stage is not None
    assert set(re.findall(r"services/\w+", stage[1])) == {"services/core", "services/api"}


@pytest.mark.parametrize("image", MODULES)
def test_every_pin_is_imported_or_needed_by_one_that_is(image: str) -> None:
    needed = needed_by(image)
    assert needed.keys() == pins(image).keys()
    reached = NAMED.keys() | set[str]().union(*map(imported, MODULES[image]))
    while more := {it for it, by in needed.items() if by & reached} - reached:
        reached |= more
    assert needed.keys() - reached == set()


@pytest.mark.parametrize("image", MODULES)
def test_what_is_imported_is_pinned(image: str) -> None:
    reached = set[str]().union(*map(imported, MODULES[image]))
    assert reached - pins(image).keys() == set()


@pytest.mark.parametrize("package", NAMED)
def test_what_is_named_is_where_we_say(package: str) -> None:
    file, name = NAMED[package]
    assert name in (ROOT / file).read_text(encoding="utf-8")


def dockerfile() -> str:
    return (ROOT / "Dockerfile").read_text(encoding="utf-8")
