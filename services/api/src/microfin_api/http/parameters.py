"""Query parameters, read as strictly as bodies."""

import re
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Final, get_args

from starlette.requests import Request

from microfin.ledger.operation import Kind
from microfin_api.http.problems import Problem

_KINDS: Final[dict[str, Kind]] = {kind: kind for kind in get_args(Kind)}
_EPOCH: Final = datetime.fromtimestamp(0, UTC)
_RFC_3339 = re.compile(
    r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(?:\.\d{1,9})?(?:[Zz]|[+-]\d{2}:\d{2})", re.ASCII
)


def refuse_unknown(request: Request, known: Collection[str]) -> None:
    """Raise `Problem` for a parameter that is not `known`, or that was sent twice."""
    seen: set[str] = set()
    for name, _ in request.query_params.multi_items():
        if name not in known:
            there_are = f"There are: {', '.join(known)}" if known else "There are none here"
            raise Problem("invalid_parameter", f"There is no parameter {name!r}. {there_are}.")
        if name in seen:
            raise Problem("invalid_parameter", f"The parameter {name!r} was sent twice.")
        seen.add(name)


def read_number(request: Request, name: str, highest: int) -> int | None:
    """Return a whole number from 1 to `highest`, None if it was not sent."""
    text = request.query_params.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 19 and 1 <= int(text) <= highest):
        raise Problem("invalid_parameter", f"{name} is a whole number from 1 to {highest}.")
    return int(text)


def read_flag(request: Request, name: str) -> bool:
    """Return whether a parameter was sent, with the value true or none; false counts as not."""
    text = request.query_params.get(name, "false")
    if text not in ("", "true", "false"):
        raise Problem("invalid_parameter", f"{name} is true or false; true may be left out.")
    return text != "false"


def read_choice(request: Request, name: str, choices: tuple[str, ...]) -> str:
    """Return one of `choices`, the first if it was not sent."""
    text = request.query_params.get(name, choices[0])
    if text not in choices:
        raise Problem("invalid_parameter", f"{name} is one of {', '.join(filter(None, choices))}.")
    return text


def read_text(request: Request, name: str) -> str | None:
    """Return a text, None if it was not sent. A leading or trailing space counts."""
    return request.query_params.get(name)


def read_kind(request: Request) -> Kind | None:
    """Return the kind of operation asked for, None if it was not sent."""
    text = request.query_params.get("kind")
    if text is None:
        return None
    if text not in _KINDS:
        raise Problem("invalid_parameter", f"kind is one of {', '.join(_KINDS)}.")
    return _KINDS[text]


def read_moment(request: Request, name: str) -> int | None:
    """Return an RFC 3339 time in milliseconds since the Unix epoch, None if it was not sent.

    Fractions of a millisecond are cut off.
    """
    text = request.query_params.get(name)
    if text is None:
        return None
    problem = Problem(
        "invalid_parameter",
        f"{name} is a time of RFC 3339 such as 2026-11-22T09:30:00Z (write a + of its offset "
        "as %2B).",
    )
    if not _RFC_3339.fullmatch(text):
        raise problem
    try:
        time = datetime.fromisoformat(_for_python(text)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise problem from None
    return (time - _EPOCH) // timedelta(milliseconds=1)


def _for_python(text: str) -> str:
    """Return `text` with six decimals of a second at most, which is all that Python reads."""
    return re.sub(r"(\.\d{6})\d+", r"\1", text.upper().replace(" ", "T"))
