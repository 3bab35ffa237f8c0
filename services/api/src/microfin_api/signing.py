"""Keyed hashes that let us recognise our own tokens without looking anything up."""

import hmac
from base64 import urlsafe_b64encode
from hashlib import blake2b

from microfin.process.settings import ApiSettings

TAG_BYTES = 18  # 144 bits, 24 characters without padding


class Signer:
    """Signs texts for one `purpose` by the platform's secret."""

    def __init__(self, settings: ApiSettings, purpose: str) -> None:
        if not settings.secret:
            raise ValueError(
                "MICROFIN_SECRET is not set: set at least 32 random characters, the same for all "
                "API processes."
            )
        self._key = blake2b(settings.secret.encode(), digest_size=32).digest()
        self._purpose = purpose.encode()

    def tag(self, text: str) -> str:
        """Return the tag of `text`, in the alphabet of URLs."""
        digest = blake2b(
            text.encode(), key=self._key, person=self._purpose, digest_size=TAG_BYTES
        ).digest()
        return urlsafe_b64encode(digest).decode()

    def is_tag(self, tag: str, text: str) -> bool:
        """Return whether `tag` is the tag of `text`, in constant time."""
        return hmac.compare_digest(tag.encode(), self.tag(text).encode())
