"""What the site does differently from the pages where the repository is shown.

- Links that leave `docs/` lead into the repository.
- Lines of the navigation with a star are the pages that they find.
"""

import logging
import re
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
PUBLIC = "https://github.com/microfin/microfin"
_LINK = re.compile(r"(\]\()(\.\.?/[^)\s#]*)(#[^)\s]*)?(\))")
_FENCE = re.compile(r"^( *)(```+|~~~+)[^\n]*\n.*?^\1\2 *$", re.MULTILINE | re.DOTALL)
_log = logging.getLogger("mkdocs.hooks.website")


def on_config(config: Any) -> Any:
    """Write out the lines of the navigation that have a star."""
    config.nav = _written_out(config.nav, Path(config.docs_dir))
    return config


def _written_out(lines: list[Any], docs: Path) -> list[Any]:
    found: list[Any] = []
    for line in lines:
        if isinstance(line, dict):
            found += [{name: _written_out(below, docs)} for name, below in line.items()]
        elif "*" in line:
            pages = sorted(docs.glob(line), key=lambda path: (path.name != "README.md", path.name))
            found += [path.relative_to(docs).as_posix() for path in pages]
        else:
            found.append(line)
    return found


def on_page_markdown(markdown: str, page: Any, config: Any, **_more: Any) -> str:
    """Let the links that leave `docs/` lead into the repository."""
    docs, path = Path(config.docs_dir).resolve(), Path(page.file.abs_src_path)

    def lead(link: re.Match[str]) -> str:
        target = (path.parent / link[2]).resolve()
        if target.is_relative_to(docs):
            return link[0]
        if not target.exists():
            _log.warning("%s links to %s, which does not exist", page.file.src_uri, link[2])
        kind = "tree" if target.is_dir() else "blob"
        place = target.relative_to(REPOSITORY).as_posix()
        return f"{link[1]}{PUBLIC}/{kind}/main/{place}{link[3] or ''}{link[4]}"

    text, end = "", 0
    for fence in _FENCE.finditer(markdown):
        text += _LINK.sub(lead, markdown[end : fence.start()]) + fence[0]
        end = fence.end()
    return text + _LINK.sub(lead, markdown[end:])
