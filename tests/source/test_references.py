"""No file leans on something that is not in this repository, or on a name that nothing explains."""

import re
import subprocess
from collections.abc import Iterable, Iterator

import pytest

from source.markdown_pages import REPOSITORY

# Decisions are in docs/architecture.md, docs/guide/invariants.md and docs/adr. The platform that
# microfin replaces is "the predecessor", which docs/guide/concepts.md explains.
UNEXPLAINED = re.compile(
    r"\b(?i:the\W+(?:design|original))\b|\bDESIGN\b|\(design, ",
)
# The lab is a Kubernetes node that our end-to-end tests boot.
LAB = re.compile(r"(?<![a-z])lab(?![a-z])", re.IGNORECASE)
LAB_FOLDERS = (
    ".ci/",
    "tests/e2e/",
)
OURS = "tests/source/test_references.py"
LICENCE = "LICENSE"


def named(pattern: re.Pattern[str], files: Iterable[str]) -> list[str]:
    return [
        f"{name}:{line}"
        for name in files
        for line in lines_with(pattern, (REPOSITORY / name).read_text(errors="replace"))
    ]


def files() -> list[str]:
    listed = subprocess.run(
        ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"),
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return sorted(
        name
        for name in listed.stdout.split("\0")
        if name and name not in (OURS, LICENCE) and (REPOSITORY / name).is_file()
    )


def lines_with(pattern: re.Pattern[str], text: str) -> Iterator[str]:
    lines = text.split("\n")
    for found in pattern.finditer(text):
        number = text.count("\n", 0, found.start())
        yield f"{number + 1}: {lines[number].strip()}"


def test_nothing_leans_on_a_text_that_is_elsewhere() -> None:
    found = named(UNEXPLAINED, files())
    assert not found, "\n".join(found)


def test_the_lab_is_named_only_where_it_is_used() -> None:
    found = named(LAB, [name for name in files() if not name.startswith(LAB_FOLDERS)])
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (UNEXPLAINED, "as the design's section 4 says"),
        (UNEXPLAINED, "# as section 4 of the\n# design says"),
        (UNEXPLAINED, "see ../shared/DESIGN.md"),
        (UNEXPLAINED, "times never fall (DESIGN, section 4)"),
        (UNEXPLAINED, "at the original's hash cost"),
        (LAB, "export LAB_HOME=here"),
        (LAB, "on the lab, boot a node"),
    ],
)
def test_what_must_not_be_named_is_found(pattern: re.Pattern[str], text: str) -> None:
    first = text.partition("\n")[0]
    assert list(lines_with(pattern, f"A line.\n{text}\n")) == [f"2: {first}"]


def test_labels_are_not_the_lab() -> None:
    assert not LAB.search("labels, available, collaboration, laboratory")
