"""Finds what a pod told in its log, between what else stands there."""

import json
from typing import Any


def find_object(log: str, field: str) -> dict[str, Any] | None:
    """Return the last JSON object in a log that begins a line and has a field, None if none does.

    It may be on one line or on many, and other words may follow it.
    """
    decoder, found, place = json.JSONDecoder(), None, 0
    while (place := _next_start(log, place)) >= 0:
        try:
            value, end = decoder.raw_decode(log, place)
        except json.JSONDecodeError:
            place += 1
            continue
        if isinstance(value, dict) and field in value:
            found = value
        place = end
    return found


def _next_start(log: str, place: int) -> int:
    """Return where the next line begins with `{`, from `place` on, or -1."""
    if place == 0 and log.startswith("{"):
        return 0
    before = log.find("\n{", max(place - 1, 0))
    return before + 1 if before >= 0 else -1


def last_words(log: str) -> str:
    """Return the last line of a log that says something."""
    lines = [line for line in log.splitlines() if line.strip()]
    return lines[-1][-500:] if lines else "its log is empty"
