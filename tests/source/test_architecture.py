"""docs/architecture.md follows requests from file to file: these exist, its picture is drawn."""

import re
import runpy
from pathlib import Path

from source.markdown_pages import REPOSITORY

PAGE = REPOSITORY / "docs" / "architecture.md"
PICTURES = REPOSITORY / "docs" / "pictures"
SOURCES = [*REPOSITORY.glob("services/*/src"), *REPOSITORY.glob("*/src")]
# A file or a folder, from the repository's root or from where Python finds it.
NAMED = re.compile(r"`([\w.-]+(?:/[\w.-]+)*(?:/|\.(?:py|md|txt|toml|yaml|js)))`")


def named_paths(text: str) -> list[str]:
    return NAMED.findall(text)


def exists(name: str) -> bool:
    return any((folder / name).exists() for folder in (REPOSITORY, *SOURCES))


def test_every_file_that_is_named_exists() -> None:
    named = named_paths(PAGE.read_text(encoding="utf-8"))
    assert {"microfin/ledger/decision.py", "microfin/kafka/", "pyproject.toml"} <= set(named)
    lost = [name for name in named if not exists(name)]
    assert not lost, f"{PAGE.name} names what is not there: {lost}"


def test_a_file_that_was_moved_is_missed() -> None:
    text = "`microfin/ledger/decision.py`, `microfin/decision.py`, `acks=all`, `microfin/gone/`"
    assert [name for name in named_paths(text) if not exists(name)] == [
        "microfin/decision.py",
        "microfin/gone/",
    ]


def test_every_layer_of_core_is_described() -> None:
    core = REPOSITORY / "services" / "core" / "src" / "microfin"
    layers = {f"microfin/{path.parent.name}/" for path in core.glob("*/__init__.py")}
    assert layers <= set(named_paths(PAGE.read_text(encoding="utf-8")))


def test_the_pictures_are_drawn_from_their_text() -> None:
    drawn: dict[Path, str] = runpy.run_path(str(PICTURES / "draw.py"))["pictures"]()
    assert set(drawn) == set(PICTURES.glob("*.svg"))
    for file, picture in drawn.items():
        assert file.read_text(encoding="utf-8") == picture, (
            f"{file.name} is stale: .venv/bin/python docs/pictures/draw.py"
        )
