"""The rules for addresses, names and passwords."""

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from microfin.people.identity import (
    Unfit,
    email_form,
    password_forms,
    read_email,
    read_name,
    read_new_email,
    read_new_password,
)

PERSIAN = "\u0645\u06cc\u200c\u062e\u0648"  # a joiner in the middle separates two letters
SAME_ADDRESSES = [
    ("Ada@Example.COM", "ada@example.com"),
    ("ΟΔΟΣ@example.gr", "οδοσ@example.gr"),
    ("ΟΔΟΣ@example.gr", "οδος@example.gr"),
    ("STRASSE@example.de", "straße@example.de"),
    ("jose\u0301@example.es", "josé@example.es"),
    ("anna@BÜCHER.example", "anna@bücher.example"),
    ("anna@bu\u0308cher.example", "anna@xn--bcher-kva.example"),
    ("anna@XN--BCHER-KVA.example", "anna@bücher。example".replace("。", ".")),
    (" ada@example.com ", "ada@example.com"),
]


@pytest.mark.parametrize(("one", "other"), SAME_ADDRESSES)
def test_one_address_has_one_form(one: str, other: str) -> None:
    assert email_form(one) == email_form(other)
    assert read_new_email(one)[-1] == read_new_email(other)[-1] == email_form(one)


@given(st.text())
@example("a\u0345\u0301@example.com")
@example("a@\u0130x.example")
def test_the_form_of_a_form_is_itself(text: str) -> None:
    form = email_form(text)
    assert email_form(form) == form


@given(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=20))
@example("ΟΔΟΣ")
@example("οδος")
@example("jose\u0301")
def test_who_is_stored_in_lower_case_is_found(local: str) -> None:
    """As releases before this one stored them, whichever of the ways the address is typed."""
    try:
        stored = read_email(f"{local}@example.com")[0]
    except Unfit:
        return
    assert stored == f"{local}@example.com".strip().lower()
    assert stored in read_email(stored)
    assert email_form(stored) in read_email(f"{local}@example.com")


@pytest.mark.parametrize("stored", ["οδος@example.gr", "οδοσ@example.gr", "jose\u0301@example.es"])
def test_who_is_stored_is_found_by_every_way_to_type_it(stored: str) -> None:
    for typed in (stored, stored.upper(), email_form(stored), unicodedata.normalize("NFD", stored)):
        assert stored in read_email(typed)
        assert stored in read_new_email(typed)


@pytest.mark.parametrize(
    "text", ["x", "a\0@b.de", "a b@c.de", "@b.de", "a@b", "a@b.de\n@c.de", "a" * 250 + "@b.de"]
)
def test_what_is_no_address(text: str) -> None:
    for read in (read_email, read_new_email):
        with pytest.raises(Unfit, match="no e-mail address"):
            read(text)


@pytest.mark.parametrize("unseen", ["\u200b", "\u200d", "\u202e", "\ufeff", "\u00ad", "\u3164"])
def test_an_address_that_looks_like_another_is_not_taken(unseen: str) -> None:
    with pytest.raises(Unfit, match="invisible"):
        read_new_email(f"ad{unseen}a@example.com")
    assert read_email(f"ad{unseen}a@example.com")  # a user who has it already signs in with it


@pytest.mark.parametrize(
    "name",
    [
        "",
        "  ",
        "\u200b\u200b",
        "\u200d",
        "\u2060",
        "\ufeff",
        "\u00ad",
        "\u202e",
        "\u3164",
        "\u115f\u1160",
        "\uffa0",
        "\u2800",
        "\ufe0f",
        "\U000e0101",
        "\u034f",
        "\u0301",
        "\u00a0\u2003\u200e",
        "Ada\u202eavoL",
        "Ada\u2066x",
        "Ada\nLovelace",
        "Ada\u2028Lovelace",
        "Ada\u200bLovelace",
        "\ue000",
        "x" * 101,
    ],
)
def test_names_that_are_refused(name: str) -> None:
    with pytest.raises(Unfit, match="A name has"):
        read_name(f"{name}")


@pytest.mark.parametrize(
    ("name", "read"),
    [
        (" Ada Lovelace ", "Ada Lovelace"),
        ("O'Brien", "O'Brien"),
        ("Jose\u0301", "José"),
        (PERSIAN, PERSIAN),
        ("क्\u200dष", "क्\u200dष"),
        ("李", "李"),
        ("🙂", "🙂"),
        ("x" * 100, "x" * 100),
    ],
)
def test_names_that_are_taken(name: str, read: str) -> None:
    assert read_name(name) == read


@pytest.mark.parametrize("password", ["short", "", "x\0" * 10, "é" * 129, "e\u0301" * 7])
def test_a_password_has_a_length_in_composed_characters(password: str) -> None:
    with pytest.raises(Unfit, match="8 to 128"):
        read_new_password(password)


@pytest.mark.parametrize(
    "password", ["password", "PassWord", "12345678", "iloveyou", "1qaz2wsx", "ZZZZzzzz", "éééééééé"]
)
def test_a_known_password_is_refused(password: str) -> None:
    with pytest.raises(Unfit, match="tried first"):
        read_new_password(password)


@pytest.mark.parametrize(
    "password", ["correct horse", "long enough", "e\u0301" * 7 + "x", "p" * 127 + "q"]
)
def test_passwords_that_are_taken(password: str) -> None:
    assert read_new_password(password) == unicodedata.normalize("NFC", password)


def test_a_password_has_its_composed_form_first() -> None:
    assert password_forms("correct horse") == ("correct horse",)
    assert password_forms("cafe\u0301 noir") == ("café noir", "cafe\u0301 noir")
