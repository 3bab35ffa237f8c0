"""How tests import what they share: absolutely, from packages of the folder `tests`."""

import ast
import tomllib
from pathlib import Path
from typing import Final

from source.markdown_pages import REPOSITORY

TESTS: Final = REPOSITORY / "tests"
PACKAGES: Final = {folder.name for folder in TESTS.iterdir() if (folder / "__init__.py").is_file()}
FILES: Final = sorted(
    path
    for folder in ("services/*/tests", "*/tests", "tests")
    for path in REPOSITORY.glob(f"{folder}/**/*.py")
)
NAMES: Final = {path.stem for path in FILES} - {"__init__", "__main__", "conftest"}


def imports(path: Path) -> list[tuple[int, str]]:
    """Return each module that a file imports, with its line; a leading dot if it is relative."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            found += [(node.lineno, module)]
            found += [(node.lineno, f"{module}.{alias.name}") for alias in node.names]
    return found


def where(path: Path, line: int, module: str) -> str:
    return f"{path.relative_to(REPOSITORY)}:{line}: {module}"


def test_no_test_module_imports_a_test_module() -> None:
    """Two test modules that need the same helper find it in a module that has no tests."""
    modules = {path.stem for path in FILES if path.name.startswith("test_")}
    assert modules
    found = [
        where(path, line, module)
        for path in FILES
        for line, module in imports(path)
        if module.rpartition(".")[2] in modules
    ]
    assert not found


def test_every_helper_is_imported_with_its_package() -> None:
    """A bare name may be found in any folder of a path, and may hide a module of others."""
    found = [
        where(path, line, module)
        for path in FILES
        for line, module in imports(path)
        if module.startswith(".") or module.partition(".")[0] in NAMES - PACKAGES
    ]
    assert not found


def test_pytest_searches_one_folder() -> None:
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    assert settings["tool"]["pytest"]["ini_options"]["pythonpath"] == ["tests"]
    assert len(PACKAGES) > 5
