"""The wire format of the commands topic (`docs/reference/wire-format.md`).

A record's key is the account number that the command is decided on, its value one JSON object. The
version only grows when an older reader could misunderstand a record; unknown fields are ignored.
"""

import re
from hashlib import blake2b
from typing import Final

import msgspec

from microfin.account_number import is_account_number
from microfin.money import EXPONENTS, is_canonical_amount
from microfin.operation import AccountState, Kind, Leg, Reason

VERSION: Final = 1
"""The version that this release writes, and the newest that it reads."""

SIZE_LIMIT: Final = 16_384
"""The largest value that is sent, in bytes; a command is a few hundred."""

_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)


class Command(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    gc=False,
    tag_field="v",
    tag=VERSION,
):
    """Asks a partition to decide one leg of an operation on `account`.

    Times are milliseconds since the Unix epoch. `counterparty` is the other account of a transfer
    as seen from `account`. `appended` is the first append's broker time of a command that was
    forwarded. `reply` is `instance/request`: where the answer is awaited.
    """

    kind: Kind
    leg: Leg
    operation: str
    account: str
    user: str = ""
    counterparty: str = ""
    amount: str = ""
    currency: str = ""
    state: AccountState | None = None
    attempt: int = 0
    generation: int = 0
    deadline: int = 0
    appended: int = 0
    reply: str = ""
    sender_seq: int = 0
    sender_balance: int = 0
    reason: Reason | None = None
    at_account: str = ""


class Identity(msgspec.Struct, frozen=True, gc=False):
    """What can still be told of a record that is no good command."""

    operation: str = ""
    leg: str = ""
    account: str = ""
    kind: str = ""
    user: str = ""
    reply: str = ""


class Undecodable(Exception):
    """A record that is not a command of a version we know. `identity` is None for garbage."""

    def __init__(self, reason: str, identity: Identity | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.identity = identity


class NewerVersion(Exception):
    """A well-formed record of a wire version that a newer release wrote."""

    def __init__(self, version: int) -> None:
        super().__init__(f"The record has wire version {version}; this release reads {VERSION}.")
        self.version = version


class _Versioned(msgspec.Struct, gc=False):
    v: int


_decode = msgspec.json.Decoder(Command).decode
_decode_version = msgspec.json.Decoder(_Versioned).decode
_decode_identity = msgspec.json.Decoder(Identity).decode
encode = msgspec.json.Encoder().encode
"""Return the JSON bytes of a command."""


def decode(key: bytes | None, value: bytes | None) -> Command:
    """Return the command that a record carries.

    Raises `NewerVersion` for a version above ours and `Undecodable` for all else that is not a
    command which could be decided.
    """
    try:
        command = _decode(value or b"")
    except msgspec.MsgspecError as error:
        _refuse_newer(value)
        raise Undecodable(f"not a command: {error}", _identity(value)) from None
    except UnicodeDecodeError:
        raise Undecodable("not UTF-8") from None
    fault = _fault(command) or (
        "the key is not the account" if key != command.account.encode() else None
    )
    if fault:
        raise Undecodable(fault, _identity(value))
    return command


def _refuse_newer(value: bytes | None) -> None:
    try:
        version = _decode_version(value or b"").v
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return
    if version > VERSION:
        raise NewerVersion(version)


def _identity(value: bytes | None) -> Identity | None:
    try:
        identity = _decode_identity(value or b"")
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    if _ID.fullmatch(identity.operation) and is_account_number(identity.account):
        return identity
    return None


def _fault(command: Command) -> str | None:  # noqa: PLR0911 - one line a rule
    """Say what makes a well-typed command impossible to decide, or None."""
    if not _ID.fullmatch(command.operation):
        return "the operation id is not 32 hexadecimal digits"
    if not is_account_number(command.account):
        return "the account is not an account number"
    if command.user and not _ID.fullmatch(command.user):
        return "the user is not 32 hexadecimal digits"
    if command.kind in ("deposit", "withdraw", "transfer") and not (
        is_canonical_amount(command.amount) and command.amount != "0"
    ):
        return "the amount is not a positive canonical decimal"
    if command.kind == "transfer" and not is_account_number(command.counterparty):
        return "the counterparty is not an account number"
    if command.leg != "request" and (
        command.kind != "transfer" or command.currency not in EXPONENTS
    ):
        return f"a {command.leg} belongs to a transfer and names its currency"
    if command.kind == "set_state" and command.state is None:
        return "set_state names no state"
    return None


def body_hash(command: Command) -> bytes:
    """Return the 128-bit hash of what the client asked for, without how it travels.

    For `open` the account is not part of it: the number follows from the operation's id.
    """
    text = "\0".join(
        (
            command.kind,
            command.leg,
            command.user,
            "" if command.kind == "open" else command.account,
            command.counterparty,
            command.amount,
            command.currency,
            command.state or "",
        )
    )
    return blake2b(text.encode(), digest_size=16).digest()
