"""The commands in the documents: blocks of `sh`, the mark above each, and what it prints."""

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_BLOCK: Final = re.compile(
    r"(?:^ *<!-- (?P<mark>[^\n]*) -->\n)?"
    r"^(?P<indent> *)```sh\n(?P<commands>.*?)^ *```$"
    r"(?:\n+```text\n(?P<printed>.*?)^```$)?",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class ShellBlock:
    """One block; `line` is where its commands begin, `mark` the comment above it."""

    line: int
    mark: str
    commands: str
    printed: tuple[str, ...]


def shell_blocks(path: Path) -> list[ShellBlock]:
    """Return the blocks of a document, in their order."""
    text = path.read_text(encoding="utf-8")
    return [
        ShellBlock(
            line=text.count("\n", 0, found.start("commands")) + 1,
            mark=found["mark"] or "",
            commands=textwrap.dedent(found["commands"]),
            printed=tuple(line for line in (found["printed"] or "").splitlines() if line.strip()),
        )
        for found in _BLOCK.finditer(text)
    ]


def missing(printed: tuple[str, ...], output: str) -> list[str]:
    """Return the lines that the output lacks. In a line `…` is anything, and spaces are some."""
    return [line for line in printed if not re.search(_pattern(line), output)]


def _pattern(line: str) -> str:
    words = [".*".join(map(re.escape, word.split("…"))) for word in line.split()]
    return r"[ \t]+".join(words)
