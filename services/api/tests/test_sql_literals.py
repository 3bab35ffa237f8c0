"""What may be written into a statement's text."""

import pytest

from microfin_api.sql_literals import bytes_literal, id_literal, integer_literal


def test_digits_become_literals() -> None:
    assert bytes_literal(b"\x00'\xff") == r"'\x0027ff'::bytea"
    assert id_literal("0123456789abcdef" * 2) == "'0123456789abcdef0123456789abcdef'::uuid"
    assert integer_literal(60) == "60::bigint"


@pytest.mark.parametrize("text", ["'", "' OR ''='", "0A", "0 ", "٣", "0\n", "\0"])
def test_nothing_else_does(text: str) -> None:
    with pytest.raises(ValueError, match="hexadecimal"):
        id_literal(text)


def test_a_negative_number_does_not() -> None:
    with pytest.raises(ValueError, match="hexadecimal"):
        integer_literal(-1)
