"""A request's id: the one that the client sent if it is sane, otherwise a new one.

It is in the header `X-Request-Id` of every answer, in every problem's document and in the log lines
of the request. It helps to find these again and proves nothing.
"""

import random
import re
from contextvars import ContextVar
from typing import Final

import structlog

HEADER: Final = b"x-request-id"

# Under this name structlog's merge_contextvars puts it into each line, as `request_id`.
REQUEST_ID: Final = ContextVar[str](
    f"{structlog.contextvars.STRUCTLOG_KEY_PREFIX}request_id", default=""
)

_SANE = re.compile(rb"[A-Za-z0-9._-]{8,64}")
_MADE_BITS: Final = 96


def read_request_id(sent: list[bytes]) -> str:
    """Return the id that was sent, if exactly one was and it is sane; otherwise a new one."""
    if len(sent) == 1 and _SANE.fullmatch(sent[0]):
        return sent[0].decode()
    return new_request_id()


def new_request_id() -> str:
    """Return a new random id: 24 hexadecimal digits."""
    return f"{random.getrandbits(_MADE_BITS):024x}"
