"""What a client may add to an operation: a reference for both sides, and metadata for itself.

Narrower than what the ledger takes (`microfin.ledger.notes`), since other people read it: texts are
composed (NFC), without invisible characters.
"""

from collections.abc import Mapping

import msgspec

from microfin.ledger import notes
from microfin.ledger.notes import METADATA_BYTES_MOST, REFERENCE_MOST, Metadata
from microfin.people.identity import Unfit, read_shown_text
from microfin_api.http.problems import Problem


class Notes(msgspec.Struct, frozen=True):
    """A reference, empty if there is none, and metadata."""

    reference: str = ""
    metadata: Metadata | None = None


NO_NOTES = Notes()


def read_notes(reference: str, metadata: Mapping[str, str] | None) -> Notes:
    """Return what a body has of both. Raises `Problem` for what does not fit."""
    if not reference and not metadata:
        return NO_NOTES
    return Notes(_read_reference(reference), _read_metadata(metadata) if metadata else None)


def _read_reference(text: str) -> str:
    try:
        return read_shown_text(text, REFERENCE_MOST)
    except Unfit as error:
        raise _problem(str(error), "$.reference") from None


def _read_metadata(sent: Mapping[str, str]) -> Metadata:
    metadata: Metadata = {}
    for name, value in sent.items():
        try:
            read = read_shown_text(name, METADATA_BYTES_MOST)
            metadata[read] = read_shown_text(value, METADATA_BYTES_MOST)
        except Unfit as error:
            raise _problem(str(error), "$.metadata") from None
    if len(metadata) < len(sent):
        raise _problem("Two names are the same when they are composed (NFC).", "$.metadata")
    fault = notes.fault("", metadata)
    if fault is not None:
        raise _problem(f"{fault[0].upper()}{fault[1:]}.", "$.metadata")
    return metadata


def _problem(sentence: str, path: str) -> Problem:
    return Problem("invalid_body", f"{sentence.removesuffix('.')} - at `{path}`.")
