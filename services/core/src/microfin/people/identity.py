"""Names, e-mail addresses and passwords: the same rules for the API and the command line.

People sign in with an e-mail address. It has one *form*, independent of upper and lower case and of
the composition of its accents: Unicode's canonical caseless matching (D145), composed. Names and
passwords are composed too (NFC; for passwords NIST SP 800-63B-4, 3.1.1.2), so that two keyboards
that encode a text differently produce the same password.
"""

import re
import unicodedata
from functools import cache
from typing import Final

import idna

PASSWORD_LEAST: Final = 8
PASSWORD_MOST: Final = 128
EMAIL_MOST: Final = 254  # RFC 5321, with the erratum on it
NAME_MOST: Final = 100

_EMAIL: Final = re.compile(
    r"[^\s@<>\"(),:;\\\[\]]{1,64}@[^\s@<>\"(),:;\\\[\]]+\.[^\s@<>\"(),:;\\\[\]]+"
)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_UNSEEN_CATEGORIES: Final = frozenset({"Cc", "Cf", "Co", "Cs", "Zl", "Zp", "Zs", "Mn", "Me"})
_FILLERS: Final = frozenset("\u115f\u1160\u2800\u3164\uffa0")
"""Letters and symbols by category, but invisible: Hangul's fillers, braille's blank."""

_JOINERS_AND_MARKS: Final = frozenset("\u200c\u200d\u200e\u200f\u061c")
"""Invisible characters that a name may have: Persian and Indic names need the joiners, and the
marks only give a direction, which ends with the name. Overrides and embeddings are not among them:
they would change the text after the name."""

_REFUSED_CATEGORIES: Final = frozenset({"Cc", "Cf", "Co", "Cs", "Zl", "Zp"})


class Unfit(ValueError):
    """A text does not fit its purpose. The message is a sentence that says why."""


def read_email(text: str) -> tuple[str, ...]:
    """Return the forms under which a user with this address may be stored.

    The first is the address in lower case as it was typed: earlier releases stored that.
    `email_form` is among them. For nearly everybody all of them are equal. Raises `Unfit` for a
    text that cannot be an address.
    """
    typed = text.strip().lower()
    if len(typed) > EMAIL_MOST or _CONTROL.search(typed) or not _EMAIL.fullmatch(typed):
        raise Unfit("That is no e-mail address.")
    form = email_form(text)
    if typed.isascii() and typed == form:
        return (typed,)
    # `form.upper().lower()` writes the sigma at the end of a word as such, which folding undoes.
    others = (typed, form, _composed(form.upper().lower()))
    decomposed = (unicodedata.normalize("NFD", other) for other in others)
    return tuple(dict.fromkeys((typed, form, *map(_composed, others), *decomposed)))


def read_new_email(text: str) -> tuple[str, ...]:
    """Return the forms of an address with which somebody signs up; the last one is stored.

    Raises `Unfit` for a text that cannot be an address, and for invisible characters: such an
    address would look like another one.
    """
    forms = read_email(text)
    form = email_form(text)
    if len(form) > EMAIL_MOST or not _EMAIL.fullmatch(form):
        raise Unfit("That is no e-mail address.")
    if any(_is_refused(it) or it in _FILLERS for it in form):
        raise Unfit("An e-mail address has no invisible characters.")
    return (*(other for other in forms if other != form), form)


def email_form(text: str) -> str:
    """Return the one form of an address. A-labels of its domain (`xn--…`) are decoded."""
    folded = _folded(text.strip())
    local, at, domain = folded.rpartition("@")
    if not domain.isascii() or "xn--" in domain:
        try:
            domain = idna.decode(domain, uts46=True)
        except (idna.IDNAError, UnicodeError):
            return folded
        folded = _folded(f"{local}{at}{domain}")
    return folded


def read_name(text: str) -> str:
    """Return a person's name, composed, without the spaces around it.

    Raises `Unfit` for a name that is too long, that is invisible, or that has characters which
    change the text after the name.
    """
    name = _composed(text.strip())
    if not 1 <= len(name) <= NAME_MOST:
        raise Unfit(f"A name has 1 to {NAME_MOST} printable characters.")
    if any(map(_is_refused, (it for it in name if it not in _JOINERS_AND_MARKS))):
        raise Unfit("A name has no control characters and no invisible ones.")
    if not any(map(_is_seen, name)):
        raise Unfit("A name has at least one character that can be seen.")
    return name


def read_shown_text(text: str, most: int) -> str:
    """Return a text that one person shows to another, composed, without the spaces around it.

    It may be empty. Raises `Unfit` for one of more than `most` characters, and as `read_name` does.
    """
    shown = _composed(text.strip())
    if len(shown) > most:
        raise Unfit(f"This text has at most {most} characters.")
    if any(map(_is_refused, (it for it in shown if it not in _JOINERS_AND_MARKS))):
        raise Unfit("This text has no control characters and no invisible ones.")
    return shown


def read_new_password(text: str) -> str:
    """Return a new password, composed. Raises `Unfit` if nobody may choose it.

    There are no rules about kinds of characters: a password must be long enough and must not be a
    known one (NIST SP 800-63B-4, 3.1.1.2).
    """
    password = _composed(text)
    if not PASSWORD_LEAST <= len(password) <= PASSWORD_MOST or "\0" in password:
        raise Unfit(f"A password has {PASSWORD_LEAST} to {PASSWORD_MOST} characters.")
    if password.lower() in _known_passwords() or len(set(password.lower())) == 1:
        raise Unfit("This password is among those that are tried first: choose another one.")
    return password


def password_forms(text: str) -> tuple[str, ...]:
    """Return the texts of which a stored hash may have been made: composed, and as it was sent.

    Earlier releases hashed passwords as they were sent. For nearly everybody both are equal.
    """
    return tuple(dict.fromkeys((_composed(text), text)))


def load_known_passwords() -> None:
    """Load the list of known passwords now, and not at the first sign-up: it takes 0.1 s."""
    _known_passwords()


@cache
def _known_passwords() -> frozenset[str]:
    """Return the passwords that are long enough in zxcvbn's list of the most used ones of leaks."""
    from zxcvbn.frequency_lists import FREQUENCY_LISTS  # noqa: PLC0415 - 10 MB, for few processes

    return frozenset(it for it in FREQUENCY_LISTS["passwords"] if len(it) >= PASSWORD_LEAST)


def _is_refused(character: str) -> bool:
    return unicodedata.category(character) in _REFUSED_CATEGORIES


def _is_seen(character: str) -> bool:
    return unicodedata.category(character) not in _UNSEEN_CATEGORIES and character not in _FILLERS


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _folded(text: str) -> str:
    return _composed(unicodedata.normalize("NFD", text).casefold())
