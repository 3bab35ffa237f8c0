"""The wire format of the commands topic (`docs/reference/wire-format.md`).

A record's key is the number of the account on which the command is decided; its value is one JSON
object. The version only increases if an older reader could misunderstand a record; unknown fields
are ignored.
"""

import re
from hashlib import blake2b
from typing import Final

import msgspec
from msgspec.structs import replace

from microfin.ledger import notes
from microfin.ledger.account_number import is_account_number
from microfin.ledger.columns import is_bigint, is_moment, is_text
from microfin.ledger.money import EXPONENTS, is_canonical_amount
from microfin.ledger.notes import Metadata
from microfin.ledger.operation import HOLD_KINDS, MONEY_KINDS, AccountState, Kind, Leg, Reason

VERSION: Final = 3
"""The newest version that this release reads. It writes the oldest that can say what a record says,
so that workers of the release before read all that has nothing new in it."""

SIZE_LIMIT: Final = 16_384
"""The largest value that is sent, in bytes; a command has a few hundred."""

READ_LIMIT: Final = SIZE_LIMIT - 1_024
"""The largest value that is decided, in bytes: the command that is sent on as a result may be a
little longer."""

REASON_LIMIT: Final = 300
"""The most characters of the text that describes a record's fault."""

NESTING_LIMIT: Final = 200
"""The deepest nesting of a value that is read. The parser has a limit too, but that depends on the
depth of the caller's stack, and a record must mean the same whenever it is decided."""

_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)
_NESTING = re.compile(rb'"(?:[^"\\]|\\.)*+"?|[][{}]', re.DOTALL)
_UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)


class Command(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    gc=False,
):
    """A request to a partition to decide one leg of an operation on `account`.

    Times are milliseconds since the Unix epoch. `counterparty` is the other account of a transfer
    as seen from `account`. `appended` is set on a command that was forwarded: the broker's time of
    its first append. `reply` is `instance/request`: the API process that waits for the answer.
    `reference` and `metadata` came with version 2; the legs that follow carry no metadata, which is
    for the sender alone.

    Holds came with version 3. `hold` is the operation that made the hold. `lifetime` is for how
    long a new one lasts, in milliseconds. A capture without an amount takes all that is left; a
    `last` one releases the rest. The legs that follow a capture carry what the answer shows:
    `hold`, `hold_left` and `released`. `sender_held` goes with `sender_balance`.
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
    reference: str = ""
    metadata: Metadata | None = None
    hold: str = ""
    lifetime: int = 0
    last: bool = False
    sender_held: int = 0
    hold_left: int = 0
    released: int = 0


class Identity(msgspec.Struct, frozen=True, gc=False):
    """What is known of a record that is no valid command."""

    operation: str = ""
    leg: str = ""
    account: str = ""
    kind: str = ""
    user: str = ""
    reply: str = ""


class Undecodable(Exception):
    """A record is not a command of a version that this release reads.

    `identity` is None for garbage. `reason` can be stored and printed, whatever the record holds.
    """

    def __init__(self, reason: str, identity: Identity | None = None) -> None:
        short = reason if len(reason) <= REASON_LIMIT else reason[: REASON_LIMIT - 1] + "…"
        plain = "".join(it if it.isprintable() else "\N{REPLACEMENT CHARACTER}" for it in short)
        super().__init__(plain)
        self.reason = plain
        self.identity = identity


class NewerVersion(Exception):
    """A well-formed record has a wire version that a newer release wrote."""

    def __init__(self, version: int) -> None:
        super().__init__(f"The record has wire version {version}; this release reads {VERSION}.")
        self.version = version


class Glance(msgspec.Struct, frozen=True, gc=False):
    """What is known of a record of any version at a glance."""

    v: int = 0
    generation: int = 0
    operation: str = ""


class _Versioned(msgspec.Struct, gc=False):
    v: int


_decode = msgspec.json.Decoder(Command).decode
_decode_version = msgspec.json.Decoder(_Versioned).decode
_decode_identity = msgspec.json.Decoder(Identity).decode
_decode_glance = msgspec.json.Decoder(Glance).decode
_encode = msgspec.json.Encoder().encode

_FIRST: Final = b'{"v":1,'
_SECOND: Final = b'{"v":2,'
_THIRD: Final = b'{"v":3,'
_HEADS: Final = {1: _FIRST, 2: _SECOND, 3: _THIRD}

_NAME_A_HOLD: Final = ("capture", "release", "expire")
"""The kinds that name a hold, and with it the receiver, if there is one."""

HOLD_LONGEST: Final = 31 * 24 * 3_600_000
"""Milliseconds for which a hold may last."""


def encode(command: Command) -> bytes:
    """Return the JSON bytes of a command, in the oldest version that can say what it says."""
    return _HEADS[version_of(command)] + _encode(command)[1:]


def version_of(command: Command) -> int:
    """Return the version in which a command is written."""
    if command.kind in HOLD_KINDS:
        return 3
    return 2 if _has_notes(command) else 1


def _has_notes(command: Command) -> bool:
    return bool(command.reference) or command.metadata is not None


def decode(key: bytes | None, value: bytes | None) -> Command:
    """Return the command that a record carries.

    Raises `NewerVersion` for a version above ours. Raises `Undecodable` for all other records that
    are not a command, or whose decision the ledger's columns could not hold.
    """
    value = value or b""
    version = _version(value)
    if version is not None and version > VERSION:
        raise NewerVersion(version)
    try:
        command = _decode(value)
    except _UNREADABLE as error:
        raise Undecodable(f"not a command: {error}", _identity(value)) from None
    if version is None or version < 1:
        raise Undecodable("not a command: it names no version that there is", _identity(value))
    if version < version_of(command):
        raise Undecodable(f"version {version} cannot say this", _identity(value))
    fault = _fault(command) or (
        "the key is not the account" if key != command.account.encode() else None
    )
    if fault or len(value) > READ_LIMIT or _is_nested_too_deeply(value):
        raise Undecodable(fault or "too large, or nested too deeply", _identity(value))
    return command


def glance(value: bytes | None) -> Glance | None:
    """Return what is known of a record at a glance, or None for garbage."""
    try:
        return _decode_glance(value or b"")
    except _UNREADABLE:
        return None


def _version(value: bytes) -> int | None:
    """Return the version that a record names. A release writes it first."""
    if value.startswith(_FIRST):
        return 1
    if value.startswith(_SECOND):
        return 2
    if value.startswith(_THIRD):
        return 3
    try:
        return _decode_version(value).v
    except _UNREADABLE:
        return None


def _identity(value: bytes) -> Identity | None:
    try:
        identity = _decode_identity(value)
    except _UNREADABLE:
        return None
    if not (_ID.fullmatch(identity.operation) and is_account_number(identity.account)):
        return None
    return identity if _ID.fullmatch(identity.user) else replace(identity, user="")


def _is_nested_too_deeply(value: bytes) -> bool:
    if value.count(b"[") + value.count(b"{") <= NESTING_LIMIT:
        return False
    depth = 0
    for token in _NESTING.finditer(value):
        if token[0] in b"[{":
            depth += 1
            if depth > NESTING_LIMIT:
                return True
        elif token[0] in b"]}":
            depth -= 1
    return False


def _fault(command: Command) -> str | None:
    """Return why a well-typed command cannot be decided or recorded, or None if it can."""
    return _rule_broken(command) or _column_exceeded(command)


def _rule_broken(command: Command) -> str | None:  # noqa: PLR0911 - one line for each rule
    if not _ID.fullmatch(command.operation):
        return "the operation id is not 32 hexadecimal digits"
    if not is_account_number(command.account):
        return "the account is not an account number"
    if command.user and not _ID.fullmatch(command.user):
        return "the user is not 32 hexadecimal digits"
    if _lacks_an_amount(command):
        return "the amount is not a positive canonical decimal"
    if command.kind == "transfer" and not is_account_number(command.counterparty):
        return "the counterparty is not an account number"
    if command.leg != "request" and (
        command.kind not in ("transfer", "capture") or command.currency not in EXPONENTS
    ):
        return f"a {command.leg} belongs to a transfer or a capture, and names its currency"
    if command.kind == "set_state" and command.state is None:
        return "set_state names no state"
    if command.kind == "open" and not command.user:
        return "open names no user"
    if command.kind in ("open", "set_state", "expire") and _has_notes(command):
        return f"{command.kind} has neither a reference nor metadata"
    return _hold_rule_broken(command) or notes.fault(command.reference, command.metadata)


def _lacks_an_amount(command: Command) -> bool:
    """Return whether there is no amount where one is needed, or one that is none."""
    must = command.kind in MONEY_KINDS or command.leg != "request"
    if not must and (command.kind != "capture" or not command.amount):
        return False
    return not is_canonical_amount(command.amount) or command.amount == "0"


def _hold_rule_broken(command: Command) -> str | None:
    if command.kind not in HOLD_KINDS:
        return None
    if command.kind == "hold":
        if not 1 <= command.lifetime <= HOLD_LONGEST:
            return f"the lifetime of a hold is not from 1 to {HOLD_LONGEST} milliseconds"
    elif not _ID.fullmatch(command.hold):
        return "the hold is not 32 hexadecimal digits"
    pays = command.leg != "request" or (command.kind == "hold" and command.counterparty)
    if pays and not is_account_number(command.counterparty):
        return "the counterparty is not an account number"
    if command.kind == "expire" and (
        command.operation != expiry_of(command.hold)
        or command.user
        or command.deadline
        or command.leg != "request"
    ):
        return "the end of a hold is not as a worker sends it"
    return None


def expiry_of(hold: str) -> str:
    """Return the id of the operation that ends `hold` at its time: it takes effect once."""
    return blake2b(f"expire\0{hold}".encode(), digest_size=16).hexdigest()


def _column_exceeded(command: Command) -> str | None:
    """Return which field could not be stored or sent on.

    Amounts are not checked here: the decision core limits them, since it knows the currency and the
    balance.
    """
    if not (is_text(command.counterparty) and is_text(command.currency)):
        return "a text has the character U+0000"
    if not is_moment(command.appended):
        return "the time of its first append is out of range"
    if not (
        is_bigint(command.generation)
        and is_bigint(command.deadline)
        and is_bigint(command.attempt)
        and is_bigint(command.sender_seq)
        and is_bigint(command.sender_balance)
        and is_bigint(command.sender_held)
        and is_bigint(command.hold_left)
        and is_bigint(command.released)
    ):
        return "a number has more than 64 bits"
    return None


def body_hash(command: Command) -> bytes:
    """Return the 128-bit hash of what the client requested, without how the command travels.

    For `open` the account is not included: its number is derived from the operation's id. Reference
    and metadata are included where there is one of them, and what only a hold has for operations on
    holds: so a body without has the hash of before.
    """
    is_request = command.leg == "request"
    parts = [
        command.kind,
        command.leg,
        command.user,
        "" if command.kind == "open" else command.account,
        "" if is_request and command.kind in _NAME_A_HOLD else command.counterparty,
        command.amount,
        command.currency,
        command.state or "",
    ]
    on_hold = command.kind in HOLD_KINDS
    if on_hold or _has_notes(command):
        parts += [command.reference, notes.canonical(command.metadata)]
    if on_hold:
        hold = command.hold if is_request else ""
        parts += [hold, str(command.lifetime), "last" if command.last else ""]
    return blake2b("\0".join(parts).encode(), digest_size=16).digest()
