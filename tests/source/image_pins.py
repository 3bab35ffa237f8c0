"""The packages of an image: its pins in images/*.txt, and the modules that its process imports."""

import ast
import re
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]

TOOLS_ONLY: Final = frozenset(
    {"alembic", "mako", "psycopg", "psycopg-binary", "rich", "sqlalchemy", "typer"}
)
"""What the command line `microfin` needs and the API must not have."""

_FOLDERS: Final = {
    "microfin": "services/core/src",
    "microfin_api": "services/api/src",
    "microfin_operator": "operator/src",
    "microfin_tools": "services/tools/src",
    "microfin_worker": "services/worker/src",
}


def pins(image: str) -> dict[str, Requirement]:
    """Return the pins of an image by their packages' names."""
    found = (
        Requirement(line) for line in re.findall(r"^([a-z0-9].*?) \\$", _text(image), re.MULTILINE)
    )
    return {canonicalize_name(pin.name): pin for pin in found}


def needed_by(image: str) -> dict[str, set[str]]:
    """Return, for each pin, which packages or pyproject files need it, as `make pins` noted it."""
    needed: dict[str, set[str]] = {}
    for block in re.split(r"^(?=[a-z0-9])", _text(image), flags=re.MULTILINE)[1:]:
        noted = set(re.findall(r"^    # (?:via|  ) *(\S+)", block, re.MULTILINE)) - {"-c"}
        needed[canonicalize_name(block.partition("==")[0])] = noted
    return needed


def imported(module: str) -> set[str]:
    """Return the packages that are not ours and that `module`, or what it imports, imports."""
    seen: set[str] = set()
    others: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        package = name.partition(".")[0]
        if package not in _FOLDERS:
            others.add(package)
        elif name not in seen:
            seen.add(name)
            waiting.extend(_parents(name))
            waiting.extend(_imports(name))
    known = packages_distributions()
    return {canonicalize_name(it) for other in others for it in known.get(other, ())}


def _text(image: str) -> str:
    return (ROOT / f"images/{image}.txt").read_text(encoding="utf-8")


def _parents(name: str) -> Iterator[str]:
    while "." in name:
        name = name.rpartition(".")[0]
        yield name


def _source(name: str) -> Path | None:
    path = ROOT / _FOLDERS[name.partition(".")[0]] / name.replace(".", "/")
    sources = (path / "__init__.py", path.with_suffix(".py"))
    return next((it for it in sources if it.is_file()), None)


def _imports(name: str) -> Iterator[str]:
    source = _source(name)
    if source is None:
        return  # a name in a module, not a module
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            assert node.level == 0, f"{source}: a relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
