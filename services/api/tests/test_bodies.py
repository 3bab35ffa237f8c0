"""What a body may hold, without any server: amounts, JSON, names."""

import re
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from microfin_api.http import bodies
from microfin_api.http.bodies import (
    DepositBody,
    SignUpBody,
    decode_body,
    read_account_number,
    read_amount,
    read_currency,
    read_email,
    read_name,
    read_new_password,
)
from microfin_api.http.problems import Problem


def code_of(act: Callable[..., object], *arguments: object) -> str:
    with pytest.raises(Problem) as raised:
        act(*arguments)
    return raised.value.kind.code


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        (b"100", "100"),
        (b"100.00", "100"),
        (b"12.50", "12.5"),
        (b"0.01", "0.01"),
        (b"9007199254740993", "9007199254740993"),  # beyond what a float can hold
        (b"0.1000000000000000055511151231257827", None),  # what a float would make of 0.1
        (b'"12.50"', "12.5"),
        (b'"0012.30"', "12.3"),
        (b'"1\\u0032"', "12"),
        (b"0", None),
        (b"-0", None),
        (b"-5", None),
        (b"-0.01", None),
        (b"0.00", None),
        (b"1e2", None),
        (b"1E2", None),
        (b"1.0e0", None),
        (b"1e-2", None),
        (b"99999999999999999999", None),
        (b"0.00001", None),
        (b'"-5"', None),
        (b'"+5"', None),
        (b'"1e2"', None),
        (b'" 5"', None),
        (b'"5 "', None),
        (b'"5,00"', None),
        (b'"1_000"', None),
        (b'""', None),
        (b'"."', None),
        (b'".5"', None),
        (b'"5."', None),
        (b'"NaN"', None),
        (b'"Infinity"', None),
        (b'"\\u0000"', None),
        ('"١٢"'.encode(), None),  # Arabic digits are digits to Python
        (b'"' + b"1" * 5000 + b'"', None),
        (b"1" * 5000, None),
    ],
)
def test_amounts_are_exact_decimals_or_refused(sent: bytes, read: str | None) -> None:
    body = decode_body(b'{"accountNumber":"1","amount":%b}' % sent, DepositBody)
    if read is None:
        assert code_of(read_amount, body.amount) == "invalid_amount"
    else:
        assert read_amount(body.amount) == read


@pytest.mark.parametrize("sent", [b"true", b"null", b"[1]", b'{"value":1}'])
def test_an_amount_of_another_type_is_refused(sent: bytes) -> None:
    assert code_of(read_amount, msgspec.Raw(sent)) == "invalid_body"


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"{",
        b"nonsense",
        b'{"accountNumber":"1","amount":NaN}',
        b'{"accountNumber":"1","amount":Infinity}',
        b'{"accountNumber":"1","amount":-Infinity}',
        b'{"accountNumber":"1","amount":012}',
        b'{"accountNumber":"1","amount":1.}',
        b'{"accountNumber":"1","amount":+1}',
        b'{"accountNumber":"1","amount":0x10}',
        b'{"accountNumber":"\\ud800","amount":1}',
        b'{"accountNumber":"1","amount":"\\udfff"}',
        b'{"accountNumber":"\xed\xa0\x80","amount":1}',
        b'{"accountNumber":"\xff","amount":1}',
        b'{"accountNumber":"1","amount":1}{}',
        b'{"accountNumber":"1","amount":1,"amount":2}',
        b'{"accountNumber":"1","accountNumber":"2","amount":1}',
        b'{"accountNumber":"1","amount":{"a":1,"a":2}}',
        b"{'accountNumber':'1','amount':1}",
        b'\xef\xbb\xbf{"accountNumber":"1","amount":1}',
        b'{"accountNumber":"1","amount":' + b"[" * 8000 + b"]" * 8000 + b"}",
    ],
)
def test_what_is_no_json_is_refused(sent: bytes) -> None:
    assert code_of(decode_body, sent, DepositBody) == "malformed_json"


@pytest.mark.parametrize(
    "sent",
    [
        b"[]",
        b'"text"',
        b"1",
        b"null",
        b"{}",
        b'{"amount":1}',
        b'{"accountNumber":"1"}',
        b'{"accountNumber":1,"amount":1}',
        b'{"accountNumber":null,"amount":1}',
        b'{"accountNumber":["1"],"amount":1}',
        b'{"account_number":"1","amount":1}',
    ],
)
def test_json_of_another_shape_is_refused(sent: bytes) -> None:
    assert code_of(decode_body, sent, DepositBody) == "invalid_body"


def test_fields_that_nobody_knows_are_refused() -> None:
    sent = b'{"accountNumber":"1","amount":1,"note":"hello"}'
    assert code_of(decode_body, sent, DepositBody) == "invalid_body"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "123456789012",
        "1000000000081",
        "10000000000",
        "10000000000a",
        "\uff1100000000008",
        "100000000008\0",
        " 100000000008",
    ],
)
def test_account_numbers_are_checked(text: str) -> None:
    assert code_of(read_account_number, text) == "invalid_account_number"


def test_a_right_account_number_passes() -> None:
    assert read_account_number("100000000008") == "100000000008"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "anna",
        "anna@",
        "@example.com",
        "anna@example",
        "a b@example.com",
        "anna@example.com\0",
        "anna\n@example.com",
        "a@b@example.com",
        f"{'a' * 250}@example.com",
    ],
)
def test_addresses_are_checked(text: str) -> None:
    assert code_of(read_email, text) == "invalid_body"


def test_addresses_are_read_in_lower_case() -> None:
    assert read_email(" Anna@Example.COM ") == ("anna@example.com",)


@pytest.mark.parametrize("text", ["", "   ", "a" * 101, "Anna\0", "An\x1bna", "An\nna"])
def test_names_are_checked(text: str) -> None:
    assert code_of(read_name, text) == "invalid_body"


@pytest.mark.parametrize("text", ["", "short", "a" * 129, "long enough\0"])
def test_passwords_are_checked(text: str) -> None:
    assert code_of(read_new_password, text) == "invalid_body"


@pytest.mark.parametrize("text", ["", "eur", "XXX", "EURO", "\0"])
def test_currencies_are_checked(text: str) -> None:
    assert code_of(read_currency, text) == "unknown_currency"


def test_types_are_named_in_what_is_wrong() -> None:
    with pytest.raises(Problem, match="invalid_body") as raised:
        decode_body(b'{"name":"Anna","email":1,"password":"x"}', SignUpBody)
    assert "$.email" in raised.value.detail


def test_bodies_are_read_in_one_place() -> None:
    """Elsewhere nobody would ask whether the body ended where it should (`body_fault`)."""
    readers = re.compile(r"request\.(?:stream|body|json|form|receive)\(|\breceive\(\)")
    source = Path(bodies.__file__).parent
    reading = {path.name for path in source.glob("*.py") if readers.search(path.read_text("utf-8"))}
    assert reading == {"bodies.py"}
