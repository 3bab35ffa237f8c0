"""Seals on documents in Redis: keyed hashes, which only a process with the key can make.

Otherwise anybody who can write to Redis could forge who is signed in, who owns an account, and the
outcome of an operation. A seal is bound to its place (the key or the channel), so that a sealed
document means nothing in another place. The seal is a member `mac` of the document, which readers
of the previous release ignore.
"""

import hmac
from hashlib import blake2b
from typing import Final

BELIEVED_SECONDS: Final = 60
"""How long readers believe a sealed entry of a cache after the time in it, for any TTL."""

CLOCK_TOLERANCE_SECONDS: Final = 5
"""How far the clock of the process that sealed an entry may be ahead of ours."""

_BEFORE: Final = b'{"mac":"'
_AFTER: Final = b'",'
_MAC_BYTES: Final = 16
_MAC_ENDS: Final = len(_BEFORE) + 2 * _MAC_BYTES
_DOCUMENT_BEGINS: Final = _MAC_ENDS + len(_AFTER)


class Seal:
    """Seals JSON objects for one `purpose` (16 characters at most) by a secret."""

    def __init__(self, secret: str, purpose: str) -> None:
        # Made once and copied: to hash the key costs as much as to hash a document.
        self._keyed = blake2b(
            key=blake2b(secret.encode(), digest_size=32).digest(),
            person=purpose.encode(),
            digest_size=_MAC_BYTES,
        )

    def close(self, place: bytes, document: bytes) -> bytes:
        """Return `document`, an object with members, sealed for `place` (which has no NUL)."""
        return b"".join((_BEFORE, self._mac(place, document), _AFTER, document[1:]))

    def open(self, place: bytes, sealed: bytes) -> bytes | None:
        """Return the document that was sealed for `place`; None where it lacks this seal."""
        document = b"{" + sealed[_DOCUMENT_BEGINS:]
        mac = self._mac(place, document)
        if not hmac.compare_digest(sealed[:_DOCUMENT_BEGINS], _BEFORE + mac + _AFTER):
            return None
        return document

    def _mac(self, place: bytes, document: bytes) -> bytes:
        hashed = self._keyed.copy()
        hashed.update(b"%b\0%b" % (place, document))
        return hashed.hexdigest().encode()


def is_fresh(cached: int, now: int) -> bool:
    """Return whether readers believe at `now` an entry cached at `cached` (milliseconds)."""
    return -CLOCK_TOLERANCE_SECONDS * 1000 <= now - cached <= BELIEVED_SECONDS * 1000


def shared_seal(secret: str, purpose: str) -> Seal | None:
    """Return the seal of a secret that API and workers share; None if there is no secret."""
    return Seal(secret, purpose) if secret else None
