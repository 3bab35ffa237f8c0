"""Seals on what stands in Redis: a keyed hash, so that only who has the key can have written it.

Whoever can write to Redis could otherwise say who somebody is, whose an account is, and what has
become of an operation. A seal is bound to its place (the key or the channel), so that a sealed
document means nothing anywhere else. It stands in the document, as a member `mac` that readers of
the release before ignore.
"""

import hmac
from hashlib import blake2b
from typing import Final

BELIEVED_SECONDS: Final = 60
"""How long a sealed entry of a cache is believed after the time in it, whatever its TTL says."""

CLOCK_TOLERANCE_SECONDS: Final = 5
"""How far the clock of who sealed an entry may be ahead of ours."""

_BEFORE: Final = b'{"mac":"'
_AFTER: Final = b'",'
_MAC_BYTES: Final = 16
_MAC_ENDS: Final = len(_BEFORE) + 2 * _MAC_BYTES
_DOCUMENT_BEGINS: Final = _MAC_ENDS + len(_AFTER)


class Seal:
    """Seals JSON objects for one `purpose` (16 characters at most) by a secret."""

    def __init__(self, secret: str, purpose: str) -> None:
        # Made once and copied: to take in the key costs as much as to hash a document.
        self._keyed = blake2b(
            key=blake2b(secret.encode(), digest_size=32).digest(),
            person=purpose.encode(),
            digest_size=_MAC_BYTES,
        )

    def close(self, place: bytes, document: bytes) -> bytes:
        """Return `document`, an object with members, sealed for `place` (without a NUL)."""
        return b"".join((_BEFORE, self._mac(place, document), _AFTER, document[1:]))

    def open(self, place: bytes, sealed: bytes) -> bytes | None:
        """Return the document that was sealed for `place`; None where this seal is not on it."""
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
    """Tell whether what was cached at `cached` is believed at `now`, both in milliseconds."""
    return -CLOCK_TOLERANCE_SECONDS * 1000 <= now - cached <= BELIEVED_SECONDS * 1000


def shared_seal(secret: str, purpose: str) -> Seal | None:
    """Return the seal of a secret that API and workers share; None where it is not set."""
    return Seal(secret, purpose) if secret else None
