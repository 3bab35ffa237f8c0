"""The `at` of a 202's Location: the signed place in the log of an operation not decided yet.

With it, an operation that no database knows yet is told as `accepted` and never as missing. It also
binds what was asked for: where the id turns out to be decided with another body, the key was used
before, and that operation is not what the 202 spoke of.

A token is `partition.offset-body.tag`, the body's hash in hexadecimal. The release before this one
made `partition.offset.tag`, and takes the longer form for one of its own.
"""

from typing import Final

import msgspec

from microfin.kafka.producer import Appended
from microfin.ledger.operation import Outcome, same_body
from microfin.process.settings import ApiSettings
from microfin_api.signing import Signer

_FIELDS: Final = 3


class At(msgspec.Struct, frozen=True):
    """What a token of ours says. `body_hash` is empty where the release before made it."""

    body_hash: bytes

    def matches(self, request: Outcome) -> bool:
        """Tell whether `request` decided what the token's holder had asked for."""
        return not self.body_hash or same_body(request, self.body_hash)


class AtTokens:
    """Makes and reads `at` tokens."""

    def __init__(self, settings: ApiSettings) -> None:
        self._signer = Signer(settings, "microfin-at")

    def make(self, operation: str, user: str, body_hash: bytes, appended: Appended) -> str:
        """Return the token of an operation of `user` at its place in the log."""
        place = f"{appended.partition}.{appended.offset}-{body_hash.hex()}"
        return f"{place}.{self._signer.tag(f'{place}.{operation}.{user}')}"

    def read(self, token: str, operation: str, user: str) -> At | None:
        """Return what `token` says, None where we did not make it for this operation and user."""
        fields = token.split(".")
        if len(fields) != _FIELDS or not token.isascii():
            return None
        place = f"{fields[0]}.{fields[1]}"
        if not self._signer.is_tag(fields[2], f"{place}.{operation}.{user}"):
            return None
        _, _, body_hash = fields[1].partition("-")
        return At(bytes.fromhex(body_hash))

    def location(
        self, operation: str, user: str, body_hash: bytes, appended: Appended | None
    ) -> str:
        """Return where an accepted operation can be asked for.

        `appended` is None where its outcome is known, which had this body.
        """
        path = f"/api/operations/{operation}"
        if appended is None:
            return path
        return f"{path}?at={self.make(operation, user, body_hash, appended)}"
