"""The `at` of a 202's Location: the signed place in the log of an operation not decided yet.

With it, an operation that no database knows yet is told as `accepted` and never as missing.
"""

from typing import Final

from microfin.producer import Appended
from microfin.settings import ApiSettings
from microfin_api.signing import Signer

_SHAPE: Final = 3


class AtTokens:
    """Makes and checks `at` tokens."""

    def __init__(self, settings: ApiSettings) -> None:
        self._signer = Signer(settings, "microfin-at")

    def make(self, operation: str, user: str, appended: Appended) -> str:
        """Return the token of an operation of `user` at its place in the log."""
        place = f"{appended.partition}.{appended.offset}"
        return f"{place}.{self._signer.tag(f'{place}.{operation}.{user}')}"

    def is_valid(self, token: str, operation: str, user: str) -> bool:
        """Tell whether we made `token` for this operation and user."""
        parts = token.split(".")
        if len(parts) != _SHAPE or not token.isascii():
            return False
        place = f"{parts[0]}.{parts[1]}"
        return self._signer.is_tag(parts[2], f"{place}.{operation}.{user}")

    def location(self, operation: str, user: str, appended: Appended | None) -> str:
        """Return where an accepted operation can be asked for."""
        path = f"/api/operations/{operation}"
        return path if appended is None else f"{path}?at={self.make(operation, user, appended)}"
