"""What people are called and sign in with: the one set of rules for the API and the command line.

An e-mail address is what somebody signs in with. It has one *form*, whatever its upper and lower
case and however its accents are composed: Unicode's canonical caseless matching (D145), composed.
Names and passwords are composed too (NFC; for passwords NIST SP 800-63B-4, 3.1.1.2), so that two
keyboards that write one text differently write one password.
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
"""Letters and symbols by category, and blank to the eye: Hangul's fillers, braille's blank."""

_JOINERS_AND_MARKS: Final = frozenset("\u200c\u200d\u200e\u200f\u061c")
"""What a name may hold though nobody sees it: Persian and Indic names need the joiners, and the
marks only say a direction, which the end of the name ends. Overrides and embeddings would reach
what is written after the name."""

_REFUSED_CATEGORIES: Final = frozenset({"Cc", "Cf", "Co", "Cs", "Zl", "Zp"})


class Unfit(ValueError):
    """A text that cannot be what it is given for. The message is a sentence that says why."""


def read_email(text: str) -> tuple[str, ...]:
    """Return the forms that a user with this address may be stored under.

    The first is the address as it was typed in lower case, which is how releases before this one
    stored it; `email_form` is among them. For nearly everybody they are one. Raises `Unfit` for
    what cannot be an address.
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
    """Return the forms of an address that somebody signs up with, the one to store last.

    Raises `Unfit` for what cannot be an address, and for characters that nobody sees: such an
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
    """Return the one form of an address. A domain's name is read from its A-labels (`xn--…`)."""
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

    Raises `Unfit` for a name that is too long, that nobody can see, or that has characters which
    change how what follows it is written.
    """
    name = _composed(text.strip())
    if not 1 <= len(name) <= NAME_MOST:
        raise Unfit(f"A name has 1 to {NAME_MOST} printable characters.")
    if any(map(_is_refused, (it for it in name if it not in _JOINERS_AND_MARKS))):
        raise Unfit("A name has no control characters and no invisible ones.")
    if not any(map(_is_seen, name)):
        raise Unfit("A name has at least one character that can be seen.")
    return name


def read_new_password(text: str) -> str:
    """Return a password that may be chosen, composed. Raises `Unfit` for one that may not.

    It has no rules about kinds of characters: length and not being known is what counts (NIST SP
    800-63B-4, 3.1.1.2).
    """
    password = _composed(text)
    if not PASSWORD_LEAST <= len(password) <= PASSWORD_MOST or "\0" in password:
        raise Unfit(f"A password has {PASSWORD_LEAST} to {PASSWORD_MOST} characters.")
    if password.lower() in _known_passwords() or len(set(password.lower())) == 1:
        raise Unfit("This password is among those that are tried first: choose another one.")
    return password


def password_forms(text: str) -> tuple[str, ...]:
    """Return what a stored hash may have been made from: the composed text, and the text as sent.

    Releases before this one hashed passwords as they were sent. For nearly everybody it is one.
    """
    return tuple(dict.fromkeys((_composed(text), text)))


def load_known_passwords() -> None:
    """Load the list of known passwords now, a tenth of a second, and not at the first sign-up."""
    _known_passwords()


@cache
def _known_passwords() -> frozenset[str]:
    """Return zxcvbn's list of the most used passwords of leaks, those that are long enough."""
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
