import json
from decimal import Decimal
from pathlib import Path

import iso4217
import pytest
from hypothesis import given
from hypothesis import strategies as st

from microfin.ledger.account_number import (
    check_digit,
    derive_account_number,
    is_account_number,
)
from microfin.ledger.money import (
    BALANCE_LIMIT,
    EXPONENTS,
    InvalidAmount,
    TooManyDecimals,
    canonical_amount,
    is_canonical_amount,
    to_canonical_amount,
    to_decimal_text,
    to_minor_units,
)

CURRENCIES = st.sampled_from(sorted(EXPONENTS))


@given(st.integers(1, BALANCE_LIMIT), CURRENCIES)
def test_minor_units_survive_the_way_out_and_back(minor_units: int, currency: str) -> None:
    text = to_canonical_amount(minor_units, currency)
    assert is_canonical_amount(text)
    assert canonical_amount(text) == text
    assert canonical_amount(to_decimal_text(minor_units, currency)) == text
    assert to_minor_units(text, currency) == minor_units
    assert Decimal(text).scaleb(EXPONENTS[currency]) == minor_units


@pytest.mark.parametrize(
    ("text", "canonical"),
    [("1", "1"), ("01", "1"), ("1.0", "1"), ("0012.30", "12.3"), ("0.05", "0.05"), ("10", "10")],
)
def test_one_amount_has_one_text(text: str, canonical: str) -> None:
    assert canonical_amount(text) == canonical


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "0.00",
        "-1",
        "+1",
        "1e2",
        "1E2",
        "NaN",
        "Infinity",
        "1.",
        ".5",
        "1,5",
        "1 ",
        " 1",
        "1_0",
        "0x1",
        "\u0661",
        "1.00001",
        "1" * 17,
        "9" * 100,
        "1\x00",
        "one",
        "1.2.3",
        "\ud800",
    ],
)
def test_what_is_no_amount_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(InvalidAmount, match=r"^[A-Z].*\.$"):
        canonical_amount(text)


@given(st.text(max_size=30))
def test_no_text_is_read_as_another_amount(text: str) -> None:
    try:
        canonical = canonical_amount(text)
    except InvalidAmount:
        return
    assert Decimal(text) == Decimal(canonical) > 0


@pytest.mark.parametrize(
    ("amount", "currency"), [("1.5", "JPY"), ("1.001", "EUR"), ("0.0001", "KWD")]
)
def test_more_decimals_than_the_currency_has_are_refused(amount: str, currency: str) -> None:
    with pytest.raises(TooManyDecimals):
        to_minor_units(amount, currency)


def test_decimals_as_people_read_them() -> None:
    assert to_decimal_text(5, "EUR") == "0.05"
    assert to_decimal_text(-1230, "EUR") == "-12.30"
    assert to_decimal_text(7, "JPY") == "7"
    assert to_decimal_text(1, "KWD") == "0.001"


def test_the_currencies_are_three_letters_and_known_exponents() -> None:
    assert EXPONENTS["EUR"] == 2
    assert EXPONENTS["JPY"] == 0
    assert EXPONENTS["KWD"] == 3
    assert all(len(code) == 3 and code.isupper() for code in EXPONENTS)


# The example of ISO/IEC 7812-1, annex B: 7992739871 has the check digit 3.
def test_check_digit_is_luhns() -> None:
    assert check_digit("7992739871") == "3"


@given(st.integers(0, 2**128 - 1), st.integers(0, 63))
def test_derived_numbers_are_account_numbers(operation: int, attempt: int) -> None:
    number = derive_account_number(f"{operation:032x}", attempt)
    assert is_account_number(number)
    assert number[0] != "0"
    assert number == derive_account_number(f"{operation:032x}", attempt)


@given(st.integers(0, 2**128 - 1), st.integers(0, 11), st.integers(1, 9))
def test_one_wrong_digit_is_noticed(operation: int, position: int, change: int) -> None:
    number = derive_account_number(f"{operation:032x}", 0)
    digit = str((int(number[position]) + change) % 10)
    assert not is_account_number(number[:position] + digit + number[position + 1 :])


@pytest.mark.parametrize("text", ["", "1", "1234567890123", "12345678901a", "\u0661" * 12])
def test_what_is_no_account_number(text: str) -> None:
    assert not is_account_number(text)


GOLDEN_EXPONENTS = Path(__file__).parent / "golden" / "exponents.json"


def test_every_currency_of_the_list_of_today_is_known() -> None:
    """Its units for which ISO names no decimals (gold, test codes) hold no accounts."""
    today = {it.code: it.exponent for it in iso4217.Currency if it.exponent is not None}
    assert today.items() <= EXPONENTS.items()


def test_no_currency_ever_goes_or_changes() -> None:
    """Amounts that are stored mean what its exponent says. New ones are added to the file."""
    assert json.loads(GOLDEN_EXPONENTS.read_text()) == EXPONENTS
