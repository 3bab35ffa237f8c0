"""The documents' commands are valid shell, and what they name is in this checkout."""

import re
import subprocess
from pathlib import Path

import pytest

from source.markdown_pages import DOCUMENTS, REPOSITORY, name_of
from source.shell_blocks import ShellBlock, missing, shell_blocks

GUIDES = sorted((REPOSITORY / "docs/guide").glob("*.md"))
INSTALL = REPOSITORY / "docs/guide/install.md"
FOLDERS = sorted(it.name for it in REPOSITORY.iterdir() if it.is_dir() and it.name[0] != ".")
FOLDER = "|".join(map(re.escape, FOLDERS))
# deploy/NAME after kubectl is its short word for a Deployment.
NAMED = re.compile(rf"(?<![\w./~$}}-])(?!deploy/[a-z0-9-]+(?![\w./-]))(?:{FOLDER})/[\w./-]+")
NAMED_ANYHOW = re.compile(rf"(?:{FOLDER})/[\w./*-]+")
TARGET = re.compile(r"(?:^|[;&|(]) *(?:[A-Z_]+=\S* +)*make +([a-z0-9-]+)", re.MULTILINE)


def place(path: Path, block: ShellBlock) -> str:
    return f"{name_of(path)}:{block.line}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_every_block_is_valid_shell(path: Path) -> None:
    for block in shell_blocks(path):
        done = subprocess.run(
            ["bash", "-n"], input=block.commands, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{place(path, block)}: {done.stderr}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_make_targets_in_blocks_exist(path: Path) -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z0-9-]+):", makefile, re.MULTILINE))
    for block in shell_blocks(path):
        for target in TARGET.findall(block.commands):
            assert target in targets, f"{place(path, block)}: make {target}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_files_in_blocks_exist(path: Path) -> None:
    for block in shell_blocks(path):
        for named in NAMED.findall(block.commands):
            assert (REPOSITORY / named).exists(), f"{place(path, block)}: {named}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_files_in_sentences_exist(path: Path) -> None:
    for named in re.findall(r"`([\w.*/-]+)`", path.read_text(encoding="utf-8")):
        if NAMED_ANYHOW.fullmatch(named):
            assert any(REPOSITORY.glob(named)), f"{name_of(path)}: {named}"


def test_the_guides_have_blocks_with_targets_and_files() -> None:
    """What the tests above look for is found where it is known to be."""
    commands = "\n".join(block.commands for path in GUIDES for block in shell_blocks(path))
    assert {"deploy", "kind-up", "load-k8s"} <= set(TARGET.findall(commands))
    assert {"charts/microfin-data", "charts/microfin/values-production.yaml"} <= set(
        NAMED.findall(commands)
    )


def test_every_fence_of_the_guides_is_understood() -> None:
    for path in GUIDES:
        fences = re.findall(r"^ *```sh$", path.read_text(encoding="utf-8"), re.MULTILINE)
        assert len(shell_blocks(path)) == len(fences), name_of(path)


def test_the_install_guides_marks_are_those_that_its_test_knows() -> None:
    marks = [block.mark for block in shell_blocks(INSTALL)]
    known = {"", "pasted by a test", "pasted by a test with K6_IMAGE"}
    assert set(marks) == known
    assert marks.count("") == 1, "only the block that makes a cluster is left out"


def test_a_line_that_was_not_printed_is_missed() -> None:
    output = "microfin   3            3        3         True    0     Running   5s\n"
    assert missing(("microfin 3 3 3 True … Running …",), output) == []
    assert missing(("microfin 6 6 6 True … Running …",), output) == [
        "microfin 6 6 6 True … Running …"
    ]
