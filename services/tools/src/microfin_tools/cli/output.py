"""How commands print data: one JSON value with `--json`, otherwise tables for people."""

import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from microfin.ledger.money import EXPONENTS, to_decimal_text

Json = Annotated[bool, typer.Option("--json", help="Print one JSON value for programs.")]
"""The option of every command that prints data."""


def print_json(value: Any) -> None:
    """Print `value` as one line of JSON."""
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")


def print_text(text: str) -> None:
    """Print a line for people."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def print_rows(rows: Sequence[Mapping[str, Any]], nothing: str) -> None:
    """Print rows of the same fields as a table, or the sentence `nothing` if there are none."""
    if not rows:
        print_text(nothing)
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in rows[0]:
        numeric = isinstance(rows[0][name], int) and not isinstance(rows[0][name], bool)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(_cell, row.values()))
    _console().print(table)


def print_fields(fields: Mapping[str, Any]) -> None:
    """Print one thing as a list of its fields, without the fields that have no value."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in fields.items():
        if value is not None and value != "":
            table.add_row(name, _cell(value))
    _console().print(table)


def time_text(milliseconds: int) -> str:
    """Return a time in the format of RFC 3339, in UTC."""
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def amount_text(minor_units: int | None, currency: str) -> str | None:
    """Return an amount with the decimals of its currency."""
    if minor_units is None:
        return None
    return to_decimal_text(minor_units, currency) if currency in EXPONENTS else str(minor_units)


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return msgspec.json.encode(value).decode()
    return "" if value is None else str(value)


def _console() -> Console:
    # Without a terminal no line is wrapped: a line is a row. The text of a record is not markup.
    width = None if sys.stdout.isatty() else 10_000
    return Console(width=width, markup=False, highlight=False, emoji=False)
