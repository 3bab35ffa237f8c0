"""What the ledger's columns can hold, for those who decide what is written there.

PostgreSQL refuses a whole batch for one value that does not fit. So nothing may be decided that the
columns cannot hold; these types say what that is, where a value of Python could be more.
"""

from typing import Annotated, Final

from msgspec import Meta

BIGINT_LEAST: Final = -(2**63)
BIGINT_MOST: Final = 2**63 - 1

Bigint = Annotated[int, Meta(ge=BIGINT_LEAST, le=BIGINT_MOST)]
"""A `bigint`: 64 bits with a sign."""

MOMENT_LATEST: Final = 253_402_300_799_999
"""The last millisecond of the year 9999: PostgreSQL knows later ones, Python's `datetime` not."""

Moment = Annotated[int, Meta(ge=0, le=MOMENT_LATEST)]
"""A `timestamptz`, in milliseconds since the Unix epoch."""


def is_bigint(number: int) -> bool:
    """Tell whether a `bigint` holds `number`."""
    return BIGINT_LEAST <= number <= BIGINT_MOST


def is_moment(time: int) -> bool:
    """Tell whether `time`, in milliseconds since the Unix epoch, is one that can be stored and
    shown."""
    return 0 <= time <= MOMENT_LATEST


def nearest_moment(time: int) -> int:
    """Return `time`, or the nearest one that can be stored: a broker may say anything."""
    return min(max(time, 0), MOMENT_LATEST)


def is_text(value: str) -> bool:
    """Tell whether a `text` holds `value`: all characters but U+0000."""
    return "\0" not in value
