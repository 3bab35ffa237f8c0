"""Checks of the source itself: what must never be in it."""

import ast
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
CORE = REPOSITORY / "services" / "core" / "src" / "microfin"
PURE = sorted(path for path in (CORE / "ledger").glob("*.py") if path.name != "__init__.py")
"""The pure layer: the folder is the list, for import-linter too."""

STORE = REPOSITORY / "services" / "worker" / "src" / "microfin_worker" / "postgres_store.py"
LEASE = CORE / "ledger" / "lease.py"
"""Seconds, as floats. No module of money may import it."""

MONEY = [
    *(path for path in PURE if path != LEASE),
    STORE,
    CORE / "redis" / "account_cache.py",
    CORE / "redis" / "replies.py",
]
IMPURE_MODULES = {
    "asyncio",
    "asyncpg",
    "datetime",
    "io",
    "logging",
    "os",
    "pathlib",
    "random",
    "secrets",
    "socket",
    "structlog",
    "subprocess",
    "sys",
    "threading",
    "time",
    "uuid",
}
IMPURE_CALLS = {"open", "print", "input", "eval", "exec", "hash", "id"}
SERVICES = sorted((REPOSITORY / "services").glob("*/src/**/*.py"))
TIMES = ("second", "timeout", "time", "pause", "within", "after", "deadline", "age", "idle")


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def name_of(path: Path) -> str:
    return path.name


@pytest.mark.parametrize("path", PURE, ids=name_of)
def test_the_ledger_layer_has_no_clock_environment_io_or_randomness(path: Path) -> None:
    name = path.name
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found = {alias.name.partition(".")[0] for alias in node.names}
            assert not found & IMPURE_MODULES, f"{name}:{node.lineno}"
        elif isinstance(node, ast.ImportFrom):
            assert (node.module or "").partition(".")[0] not in IMPURE_MODULES, (
                f"{name}:{node.lineno}"
            )
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in IMPURE_CALLS, f"{name}:{node.lineno}"


@pytest.mark.parametrize("path", MONEY, ids=name_of)
def test_no_float_in_the_modules_of_money(path: Path) -> None:
    for node in ast.walk(tree(path)):
        where = f"{path.name}:{getattr(node, 'lineno', 0)}"
        assert not (isinstance(node, ast.Constant) and isinstance(node.value, float)), where
        if isinstance(node, ast.BinOp):
            assert not isinstance(node.op, ast.Div), where
        if isinstance(node, ast.Name) and node.id == "float" and path != STORE:
            pytest.fail(where)
        if isinstance(node, ast.ImportFrom):
            assert node.module != "microfin.ledger.lease", where


@pytest.mark.parametrize("path", SERVICES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_float_is_only_called_for_times(path: Path) -> None:
    for node in ast.walk(tree(path)):
        called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        if called and node.func.id == "float":
            text = ast.unparse(node).lower()
            assert any(word in text for word in TIMES), f"{path.name}:{node.lineno}: {text}"


@pytest.mark.parametrize("path", SERVICES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_amounts_and_balances_are_never_annotated_as_floats(path: Path) -> None:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.AnnAssign | ast.arg) and node.annotation is not None:
            name = ast.unparse(node.target) if isinstance(node, ast.AnnAssign) else node.arg
            if "float" in ast.unparse(node.annotation):
                money = ("amount", "balance", "needed", "available", "limit", "minor")
                assert not any(word in name.lower() for word in money), f"{path.name}:{node.lineno}"
