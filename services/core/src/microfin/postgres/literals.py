"""SQL literals, for statements that travel in one message.

PostgreSQL's extended protocol, the one with parameters, costs a round trip to parse a statement and
another to run it, and behind a transaction pooler a transaction around both. A statement without
parameters is one message there and one back. So the worker's batches carry their values as
literals. PostgreSQL logs a slow or failing statement with its literals. So a value that must not be
in that log (an address, a name, a hash, a token) is never a literal but a parameter.

Every text becomes an escape string constant (E'…'), which means the same for every value of
`standard_conforming_strings`: doubling quotes and backslashes is enough (PostgreSQL's manual,
4.1.2.2). Numbers are written by `int`, bytes in hexadecimal.
"""

from collections.abc import Sequence

import asyncpg


def text(value: str) -> str:
    """Return a text as a literal. Raises PostgreSQL's own error if it cannot hold the text."""
    if "\0" in value:  # would end the message
        raise asyncpg.CharacterNotInRepertoireError("a text with the character U+0000")
    return "E'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def binary(value: bytes | None) -> str:
    """Return bytes as a literal of `bytea`."""
    return "NULL" if value is None else f"E'\\\\x{value.hex()}'"


def texts(values: Sequence[str | None]) -> str:
    """Return texts, or values written as text such as a `uuid`, as a literal of an array."""
    if not values:
        return "'{}'"
    plain = "".join(value for value in values if value)
    if '"' in plain or "\\" in plain:
        values = [value and value.replace("\\", "\\\\").replace('"', '\\"') for value in values]
    return text(
        "{" + ",".join(["NULL" if value is None else f'"{value}"' for value in values]) + "}"
    )


def integers(values: Sequence[int | None]) -> str:
    """Return integers as a literal of an array."""
    return (
        "'{" + ",".join(["NULL" if value is None else str(int(value)) for value in values]) + "}'"
    )


def binaries(values: Sequence[bytes | None]) -> str:
    """Return byte strings as a literal of an array of `bytea`."""
    return texts([None if value is None else f"\\x{value.hex()}" for value in values])
