"""Finds a program's result in a pod's log, between other lines."""

import json
from typing import Any


def find_object(log: str, field: str) -> dict[str, Any] | None:
    """Return the last JSON object in a log that begins a line and has a field, None without one.

    The object may have several lines, and other text may follow it.
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
    """Return the next position at or after `place` where a line begins with `{`, or -1."""
    if place == 0 and log.startswith("{"):
        return 0
    before = log.find("\n{", max(place - 1, 0))
    return before + 1 if before >= 0 else -1


def last_words(log: str) -> str:
    """Return the last line of a log that is not blank."""
    lines = [line for line in log.splitlines() if line.strip()]
    return lines[-1][-500:] if lines else "its log is empty"
