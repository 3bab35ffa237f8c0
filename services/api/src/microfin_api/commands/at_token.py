"""The `at` of a 202's Location: the signed place in the log of an operation not decided yet.

With it, an operation that no database knows yet is reported as `accepted` and never as missing. It
also names the request's body: if the operation was decided with another body, the key had been used
before, and the 202 meant another request.

A token is `partition.offset-body.tag`, where body is a hash in hexadecimal. The previous release
made `partition.offset.tag`, and accepts the longer form as well.
"""

from typing import Final

import msgspec

from microfin.kafka.producer import Appended
from microfin.ledger.operation import Outcome, same_body
from microfin.process.settings import ApiSettings
from microfin_api.signing import Signer

_FIELDS: Final = 3


class At(msgspec.Struct, frozen=True):
    """The content of a valid token: the place of the request in the log, and its body's hash.

    `body_hash` is empty if the previous release made it.
    """

    partition: int
    offset: int
    body_hash: bytes

    def matches(self, request: Outcome) -> bool:
        """Return whether `request` decided what the token's holder had asked for."""
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
        """Return the content of `token`, None if it is not ours for this operation and user."""
        fields = token.split(".")
        if len(fields) != _FIELDS or not token.isascii():
            return None
        place = f"{fields[0]}.{fields[1]}"
        if not self._signer.is_tag(fields[2], f"{place}.{operation}.{user}"):
            return None
        offset, _, body_hash = fields[1].partition("-")
        return At(int(fields[0]), int(offset), bytes.fromhex(body_hash))

    def location(
        self, operation: str, user: str, body_hash: bytes, appended: Appended | None
    ) -> str:
        """Return the address of an accepted operation.

        `appended` is None if its outcome is known, which was decided with this body.
        """
        path = f"/api/operations/{operation}"
        if appended is None:
            return path
        return f"{path}?at={self.make(operation, user, body_hash, appended)}"
