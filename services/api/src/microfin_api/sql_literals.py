"""SQL literals for statements that are sent as one text.

Behind a pooler without prepared statements, a statement with arguments costs four round trips:
BEGIN, parse, execute, COMMIT. One without arguments is a transaction by itself and costs one. Only
what is checked here to consist of digits may be written into such a text; whatever a person has
sent goes in as an argument, or as the hexadecimal digits of its bytes.
"""

import re

_DIGITS = re.compile(r"[0-9a-f]*", re.ASCII)


def bytes_literal(value: bytes) -> str:
    """Return `value` as a literal of type bytea."""
    return f"'\\x{_checked(value.hex())}'::bytea"


def id_literal(value: str) -> str:
    """Return an id of 32 hexadecimal digits as a literal of type uuid."""
    return f"'{_checked(value)}'::uuid"


def integer_literal(value: int) -> str:
    """Return a number that is not negative as a literal of type bigint."""
    return f"{_checked(str(value))}::bigint"


def _checked(digits: str) -> str:
    if not _DIGITS.fullmatch(digits):
        raise ValueError("only hexadecimal digits may be written into a statement")
    return digits
