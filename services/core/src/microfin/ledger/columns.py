"""What the ledger's columns can hold, for the code that decides what is written there.

PostgreSQL refuses a whole batch if one value does not fit. So no decision may contain a value that
its column cannot hold. These types set the limits for values that could be larger in Python.
"""

from typing import Annotated, Final

from msgspec import Meta

BIGINT_LEAST: Final = -(2**63)
BIGINT_MOST: Final = 2**63 - 1

Bigint = Annotated[int, Meta(ge=BIGINT_LEAST, le=BIGINT_MOST)]
"""A `bigint`: 64 bits with a sign."""

MOMENT_LATEST: Final = 253_402_300_799_999
"""The last millisecond of the year 9999: Python's `datetime` has no later one."""

Moment = Annotated[int, Meta(ge=0, le=MOMENT_LATEST)]
"""A `timestamptz`, in milliseconds since the Unix epoch."""


def is_bigint(number: int) -> bool:
    """Return whether a `bigint` can hold `number`."""
    return BIGINT_LEAST <= number <= BIGINT_MOST


def is_moment(time: int) -> bool:
    """Return whether `time`, in milliseconds since the Unix epoch, can be stored and shown."""
    return 0 <= time <= MOMENT_LATEST


def nearest_moment(time: int) -> int:
    """Return `time`, or the nearest time that can be stored: a broker may report any number."""
    return min(max(time, 0), MOMENT_LATEST)


def is_text(value: str) -> bool:
    """Return whether a `text` can hold `value`: it holds every character except U+0000."""
    return "\0" not in value
