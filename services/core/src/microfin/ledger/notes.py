"""What a client adds to an operation: a reference for both sides, and metadata for itself.

The limits are those of the ledger: they decide what a record of the log may hold, so they must not
depend on the release of Python or of Unicode. What a client may send is narrower
(`microfin_api.http.notes`).
"""

from collections.abc import Mapping
from typing import Final

Metadata = dict[str, str]
"""Names and values, as a client sent them."""

REFERENCE_MOST: Final = 140
"""Characters of a reference, as in ISO 20022's unstructured remittance information."""

METADATA_PAIRS_MOST: Final = 20
METADATA_BYTES_MOST: Final = 2_048
"""Bytes of all names and values together, in UTF-8."""

_SPACE: Final = 0x20
_DELETE: Final = range(0x7F, 0xA0)
_SURROGATES: Final = range(0xD800, 0xE000)

_VALUE_FOLLOWS: Final = "\x02"
_PAIR_ENDS: Final = "\x03"


def fault(reference: str, metadata: Mapping[str, str] | None) -> str | None:
    """Return why an operation cannot have these, or None if it can."""
    if len(reference) > REFERENCE_MOST:
        return f"the reference has more than {REFERENCE_MOST} characters"
    if not _is_plain(reference):
        return "the reference has a control character"
    return None if metadata is None else _metadata_fault(metadata)


def _metadata_fault(metadata: Mapping[str, str]) -> str | None:
    if not metadata:
        return "the metadata has no pair"
    if len(metadata) > METADATA_PAIRS_MOST:
        return f"the metadata has more than {METADATA_PAIRS_MOST} pairs"
    if not all(_is_plain(text) for pair in metadata.items() for text in pair):
        return "the metadata has a control character"
    if sum(len(text.encode()) for pair in metadata.items() for text in pair) > METADATA_BYTES_MOST:
        return f"the metadata has more than {METADATA_BYTES_MOST} bytes"
    if "" in metadata:
        return "the metadata has a pair without a name"
    return None


def _is_plain(text: str) -> bool:
    """Return whether `text` has neither control characters nor halves of characters."""
    return (text.isascii() and text.isprintable()) or not any(
        code < _SPACE or code in _DELETE or code in _SURROGATES for code in map(ord, text)
    )


def canonical(metadata: Mapping[str, str] | None) -> str:
    """Return the one text of these pairs, whatever order they came in; empty for None.

    The auditor makes the same text in SQL. No name and no value has a control character.
    """
    pairs = sorted((metadata or {}).items())
    return _PAIR_ENDS.join(name + _VALUE_FOLLOWS + value for name, value in pairs)
