"""The file of what was measured so far, so that an interrupted run goes on where it was."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from microfin_loadtest.errors import LoadImpossible
from microfin_loadtest.figures.goal import Measurement
from microfin_local.files import write_atomically


class Store:
    """Measurements by part and side, and notes by part and side about one that is under way."""

    def __init__(self, file: Path, subject: Mapping[str, Any]) -> None:
        """Open or begin a file. Raises LoadImpossible if it is about another `subject`."""
        self._file = file
        as_read = json.loads(json.dumps(dict(subject)))
        self._kept: dict[str, Any] = {"subject": as_read, "measured": {}, "notes": {}}
        if file.exists():
            kept = json.loads(file.read_text())
            if kept["subject"] != self._kept["subject"]:
                raise LoadImpossible(
                    f"{file} has figures of {kept['subject']}, not of {self._kept['subject']}. "
                    "Give the same options to go on with it, or --fresh to measure anew."
                )
            self._kept = kept

    def measured(self, part: str, side: str) -> list[Measurement]:
        """Return the measurements of a part and a side, `before` or `after`."""
        kept: list[Measurement] = self._kept["measured"].get(f"{part} {side}", [])
        return kept

    def add(self, part: str, side: str, measurement: Measurement) -> None:
        """Keep a measurement; its notes are no longer needed."""
        self._kept["notes"].pop(f"{part} {side}", None)
        self._append("measured", part, side, measurement)

    def notes(self, part: str, side: str) -> "Notes":
        """Return the notes about a measurement that is under way."""
        return Notes(self, part, side)

    def note(self, part: str, side: str, noted: Measurement) -> None:
        """Keep a note."""
        self._append("notes", part, side, noted)

    def noted(self, part: str, side: str) -> list[Measurement]:
        """Return the notes of a part and a side."""
        return list(self._kept["notes"].get(f"{part} {side}", []))

    def _append(self, kind: str, part: str, side: str, value: Measurement) -> None:
        self._kept[kind].setdefault(f"{part} {side}", []).append(dict(value))
        self._file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self._file, json.dumps(self._kept, indent=1))


class Notes:
    """What a part keeps while it measures, and finds again after an interruption."""

    def __init__(self, store: Store, part: str, side: str) -> None:
        self._store, self._part, self._side = store, part, side

    def all(self) -> list[Measurement]:
        """Return the notes, oldest first."""
        return self._store.noted(self._part, self._side)

    def add(self, noted: Measurement) -> None:
        """Keep a note."""
        self._store.note(self._part, self._side, noted)
