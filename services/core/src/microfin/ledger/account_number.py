"""Account numbers: 11 digits and a Luhn check digit (ISO/IEC 7812-1, annex B)."""

from hashlib import blake2b
from typing import Final

LENGTH: Final = 12
_FIRST_BODY: Final = 10**10  # eleven digits without a leading zero
_BODIES: Final = 9 * 10**10
_DOUBLED: Final = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)


def check_digit(body: str) -> str:
    """Return the Luhn check digit of the digits `body`."""
    total = 0
    for position, character in enumerate(reversed(body)):
        digit = ord(character) - 48
        total += _DOUBLED[digit] if position % 2 == 0 else digit
    return str(-total % 10)


def is_account_number(text: str) -> bool:
    """Return whether `text` is 12 ASCII digits, and the last one is the right check digit."""
    return (
        len(text) == LENGTH
        and text.isascii()
        and text.isdigit()
        and check_digit(text[:-1]) == text[-1]
    )


def derive_account_number(operation_id: str, attempt: int) -> str:
    """Return the number that an `open` operation tries at its `attempt` (0, 1, 2 …).

    The number is derived from the operation's id alone, so that a repeat of the operation requests
    the same account, on the same partition.
    """
    digest = blake2b(f"{operation_id}:{attempt}".encode(), digest_size=8).digest()
    body = str(_FIRST_BODY + int.from_bytes(digest) % _BODIES)
    return body + check_digit(body)
