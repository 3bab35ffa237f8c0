"""Finds the ledgers that the command line names: `microfin`, or the file of an adapter."""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from microfin_loadtest.compare import microfin
from microfin_loadtest.compare.adapter import Ledger
from microfin_loadtest.errors import LoadImpossible

_METHODS: Final = ("prepare", "transfer", "settled", "audit")


@dataclass(frozen=True)
class Named:
    """A ledger, and its name in the result."""

    name: str
    ledger: Ledger


def find_ledgers(arguments: Sequence[str]) -> list[Named]:
    """Return the ledgers of the command line. Raises LoadImpossible if one has no adapter."""
    if len(set(arguments)) < len(arguments):
        raise LoadImpossible("A ledger is named twice. Add where each is: microfin=FOLDER.")
    stems = [_stem(argument) for argument in arguments]
    return [
        Named(stem if stems.count(stem) == 1 else argument, _ledger(argument))
        for stem, argument in zip(stems, arguments, strict=True)
    ]


def _stem(argument: str) -> str:
    return Path(argument.partition("=")[0]).stem


def _ledger(argument: str) -> Ledger:
    adapter, _, where = argument.partition("=")
    module = microfin if adapter == "microfin" else _load(Path(adapter))
    made: Ledger = _class_of(module, adapter)(where)
    return made


def _load(file: Path) -> ModuleType:
    if not file.is_file():
        raise LoadImpossible(
            f"There is no adapter {file}. Name the Python file of an adapter, such as ./mine.py or "
            "./mine.py=http://127.0.0.1:5001, or `microfin`. How to write one is in "
            "docs/guide/load-testing.md."
        )
    spec = importlib.util.spec_from_file_location(f"adapter_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise LoadImpossible(f"{file} is no Python file: its name must end with .py.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _class_of(module: ModuleType, adapter: str) -> Any:
    found = getattr(module, "Adapter", None)
    if found is None:
        raise LoadImpossible(
            f"{adapter} has no class called Adapter. Write one with the methods "
            f"{', '.join(_METHODS)}, as loadtest/src/microfin_loadtest/compare/microfin.py does."
        )
    missing = [name for name in _METHODS if not callable(getattr(found, name, None))]
    if missing:
        raise LoadImpossible(
            f"The Adapter of {adapter} has no {', '.join(missing)}. What each must do is in "
            "loadtest/src/microfin_loadtest/compare/adapter.py."
        )
    return found
