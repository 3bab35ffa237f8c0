"""All Markdown pages of this checkout."""

from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).parents[2]
_HIDDEN: Final = {".git", ".venv", ".local", "node_modules", ".pytest_cache"}
DOCUMENTS: Final = sorted(
    path
    for path in REPOSITORY.rglob("*.md")
    if not _HIDDEN & set(path.relative_to(REPOSITORY).parts)
)


def name_of(path: Path) -> str:
    """Return a page's path in the checkout, as tests name it."""
    return str(path.relative_to(REPOSITORY))
