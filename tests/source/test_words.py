"""Retired words do not come back: CONTRIBUTING.md has the table of the words that replaced them."""

import re
import subprocess
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
RETIRED: Final = re.compile(
    r"(?<![a-z])(told|tells|mend|mends|mended|mending|shall|look_again|observing|whoever)(?![a-z])",
    re.IGNORECASE,
)
TEXTS: Final = (".js", ".json", ".md", ".py", ".sh", ".toml", ".tpl", ".txt", ".yaml", ".yml")
ELSEWHERE: Final = {
    "CONTRIBUTING.md",  # names them
    "LICENSE",
    "docs/adr/README.md",  # the name of a file
    "tests/source/test_words.py",
}


def texts() -> list[str]:
    """Return the files in which people read words of ours."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    return [name for name in listed if name.endswith(TEXTS) and name not in ELSEWHERE]


def test_retired_words_are_not_used() -> None:
    found = [
        f"{name}:{number}: {line.strip()[:120]}"
        for name in texts()
        for number, line in enumerate(
            (ROOT / name).read_text(encoding="utf-8", errors="ignore").splitlines(), start=1
        )
        if RETIRED.search(re.sub(r"\(\S+\.md\S*\)", "", line))  # names of files stay
    ]
    assert not found, "\n".join(found)
