"""Request bodies: their fields, how they are read, and the problems of those that do not fit."""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any, Final, TypeVar

import msgspec
from starlette.requests import Request

from microfin.ledger.account_number import is_account_number
from microfin.ledger.money import EXPONENTS, InvalidAmount, canonical_amount
from microfin.ledger.notes import METADATA_BYTES_MOST, METADATA_PAIRS_MOST, REFERENCE_MOST
from microfin.ledger.wire import HOLD_LONGEST
from microfin.people import identity
from microfin.people.identity import EMAIL_MOST, NAME_MOST, PASSWORD_LEAST, PASSWORD_MOST
from microfin_api.http.problems import Problem

_DISCARD_MOST: Final = 4 * 2**20
_DISCARD_SECONDS: Final = 2.0
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?", re.ASCII)

_DAY: Final = 24 * 3_600
_AMOUNT_SCHEMA: Final[dict[str, Any]] = {
    "oneOf": [
        {"type": "string", "pattern": r"^[0-9]{1,40}(\.[0-9]{1,40})?$"},
        {"type": "number", "exclusiveMinimum": 0},
    ],
    "examples": ["12.50", 12.5],
}

AccountNumber = Annotated[
    str,
    msgspec.Meta(
        description="12 digits, the last of which is a Luhn check digit.",
        examples=["100000000008"],
        extra_json_schema={"pattern": "^[0-9]{12}$"},
    ),
]
Amount = Annotated[
    msgspec.Raw,
    msgspec.Meta(
        description="A positive decimal as a JSON number or string, exact, without an exponent.",
        extra_json_schema=_AMOUNT_SCHEMA,
    ),
]
Currency = Annotated[
    str,
    msgspec.Meta(description="ISO 4217 code.", extra_json_schema={"enum": sorted(EXPONENTS)}),
]
Email = Annotated[
    str,
    msgspec.Meta(
        description="Upper and lower case are equal, and so are composed and decomposed accents.",
        extra_json_schema={"format": "email", "maxLength": EMAIL_MOST},
    ),
]
Password = Annotated[
    str, msgspec.Meta(extra_json_schema={"minLength": PASSWORD_LEAST, "maxLength": PASSWORD_MOST})
]
Name = Annotated[str, msgspec.Meta(extra_json_schema={"minLength": 1, "maxLength": NAME_MOST})]
Reference = Annotated[
    str,
    msgspec.Meta(
        description="What the money is for. Both sides see it, in the operation and in their "
        "statements.",
        examples=["Invoice 2026-117"],
        extra_json_schema={"maxLength": REFERENCE_MOST},
    ),
]
SentMetadata = Annotated[
    dict[str, str],
    msgspec.Meta(
        description="Names and values that you alone see, in the operation. Together they have at "
        f"most {METADATA_BYTES_MOST} bytes.",
        examples=[{"order": "A-17"}],
        extra_json_schema={"maxProperties": METADATA_PAIRS_MOST},
    ),
]


Receiver = Annotated[
    str,
    msgspec.Meta(
        description="The account that captures pay. Without it they are withdrawals.",
        examples=["100000000008"],
        extra_json_schema={"pattern": "^[0-9]{12}$"},
    ),
]
HoldSeconds = Annotated[
    int,
    msgspec.Meta(
        ge=1,
        le=HOLD_LONGEST // 1000,
        description="Seconds after which the hold ends by itself: 7 days by default, 31 at most.",
    ),
]
CapturedAmount = Annotated[
    msgspec.Raw,
    msgspec.Meta(
        description="A positive decimal as a JSON number or string. Without it, all that the hold "
        "has left.",
        extra_json_schema=_AMOUNT_SCHEMA,
    ),
]
LastCapture = Annotated[
    bool,
    msgspec.Meta(description="Whether what the hold has left then is released."),
]


class SignUpBody(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """Who signs up."""

    name: Name
    email: Email
    password: Password


class SignInBody(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """Who signs in."""

    email: str
    password: str


class PasswordBody(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """The current password and the new one."""

    current_password: str
    new_password: Password


class OpenBody(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """Which account to open."""

    currency: Currency | None = None


class DepositBody(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """What to deposit or withdraw, and where."""

    account_number: AccountNumber
    amount: Amount
    reference: Reference = ""
    metadata: SentMetadata | None = None


class HoldBody(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """How much to set aside, of which account, for whom and for how long."""

    account_number: AccountNumber
    amount: Amount
    receiver_account_number: Receiver | None = None
    expires_in: HoldSeconds = 7 * _DAY
    reference: Reference = ""
    metadata: SentMetadata | None = None


def _no_amount() -> msgspec.Raw:
    return msgspec.Raw(b"")


class CaptureBody(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """How much to pay from a hold."""

    amount: CapturedAmount = msgspec.field(default_factory=_no_amount)
    final: LastCapture = False
    reference: Reference = ""
    metadata: SentMetadata | None = None


class ReleaseBody(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """What a release may be noted with."""

    reference: Reference = ""
    metadata: SentMetadata | None = None


class TransferBody(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """What to transfer, from where, and to where."""

    sender_account_number: AccountNumber
    receiver_account_number: AccountNumber
    amount: Amount
    reference: Reference = ""
    metadata: SentMetadata | None = None


_Body = TypeVar("_Body", bound=msgspec.Struct)
_DECODERS: Final[dict[type[msgspec.Struct], msgspec.json.Decoder[Any]]] = {
    body: msgspec.json.Decoder(body)
    for body in (
        *(SignUpBody, SignInBody, PasswordBody, OpenBody, DepositBody, TransferBody),
        *(HoldBody, CaptureBody, ReleaseBody),
    )
}


_decode_keys = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


async def read_body(request: Request, body: type[_Body], limit: int) -> _Body:
    """Return the request's JSON body. Raises `Problem` if it is too large or does not fit."""
    data = await _read(request, limit)
    _require_json(request)
    return decode_body(data, body)


async def read_optional_body(request: Request, body: type[_Body], limit: int) -> _Body:
    """Return the request's JSON body, with its defaults if none was sent.

    A client that sends no body need not send its type. A browser's form always sends one, and is
    refused because of it.
    """
    data = await _read(request, limit)
    if data or "content-type" in request.headers:
        _require_json(request)
    return decode_body(data or b"{}", body)


async def _read(request: Request, limit: int) -> bytes:
    encoding = request.headers.get("content-encoding")
    if encoding is not None and encoding.strip().lower() != "identity":
        raise Problem("encoded_body", headers={"Accept-Encoding": "identity"})
    data = b""
    stream = request.stream()
    async for chunk in stream:
        data += chunk
        if len(data) > limit:
            await _discard(stream)
            raise Problem(
                "body_too_large", f"The limit is {limit} bytes.", headers={"Connection": "close"}
            )
    fault = request.scope.get("body_fault")  # set by the protocol: the rest will not come
    if fault:
        raise Problem(fault, headers={"Connection": "close"})
    return data


async def _discard(stream: AsyncIterator[bytes]) -> None:
    """Read on for a while: a client that still sends when we hang up may miss our answer."""
    discarded = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DISCARD_SECONDS):
            async for chunk in stream:
                discarded += len(chunk)
                if discarded > _DISCARD_MOST:
                    return


def _require_json(request: Request) -> None:
    content_type = request.headers.get("content-type", "")
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise Problem("not_json")


def decode_body(data: bytes, body: type[_Body]) -> _Body:
    """Return `data` as `body`. Raises `Problem` if it is not JSON or does not fit."""
    try:
        decoded: _Body = _DECODERS[body].decode(data)
        text = data.decode()
        if not _has_surely_no_duplicates(text):
            _DUPLICATES.decode(text)
    except msgspec.ValidationError as error:
        raise Problem("invalid_body", f"{error}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Problem("malformed_json", _json_fault(error)) from None
    return decoded


def _has_surely_no_duplicates(text: str) -> bool:
    """Return quickly whether no key can occur twice: there are as many colons as different keys.

    Each occurrence of a key has a colon. A further colon may be in a text or in another object. The
    slow check decides that, and everything that is rare in JSON.
    """
    if not text.isprintable() or "\\" in text:
        return False
    try:
        return text.count(":") == len(_decode_keys(text))
    except msgspec.DecodeError:
        return False


def _json_fault(error: Exception) -> str:
    if isinstance(error, msgspec.DecodeError):
        return f"{error}."
    if isinstance(error, RecursionError):
        return "The body is nested too deeply."
    return "The body is not UTF-8."


def _refuse_duplicates(pairs: list[tuple[str, object]]) -> None:
    if len({name for name, _ in pairs}) != len(pairs):
        raise Problem("malformed_json", "A key occurs twice in one object.")


# Parsers disagree about which of two equal keys counts, so both are refused. Numbers stay texts.
_DUPLICATES: Final = json.JSONDecoder(
    object_pairs_hook=_refuse_duplicates, parse_int=str, parse_float=str
)


def read_amount(amount: msgspec.Raw) -> str:
    """Return the canonical text of an amount. Raises `Problem` if it is not one."""
    text = bytes(amount).decode()
    if text.startswith('"'):
        text = msgspec.json.decode(text, type=str)
    elif not _NUMBER.fullmatch(text):
        if text[0] in "-0123456789":
            raise Problem("invalid_amount", "Write the amount without an exponent.")
        raise Problem("invalid_body", "Expected a number or a string - at `$.amount`.")
    try:
        return canonical_amount(text)
    except InvalidAmount as error:
        raise Problem("invalid_amount", str(error)) from None


def read_account_number(text: str) -> str:
    """Return `text` if it is an account number. Raises `Problem` otherwise."""
    if not is_account_number(text):
        raise Problem("invalid_account_number")
    return text


def read_currency(text: str) -> str:
    """Return `text` if accounts may have this currency. Raises `Problem` otherwise."""
    if text not in EXPONENTS:
        raise Problem("unknown_currency")
    return text


def read_email(text: str) -> tuple[str, ...]:
    """Return the forms that a user's address may be stored in; `Problem` for what is none."""
    with _problem_if_unfit("email"):
        return identity.read_email(text)


def read_new_email(text: str) -> tuple[str, ...]:
    """Return the forms of an address that is signed up with, the one to store last.

    Raises `Problem` for one that cannot be.
    """
    with _problem_if_unfit("email"):
        return identity.read_new_email(text)


def read_name(text: str) -> str:
    """Return a person's name without the spaces around it. Raises `Problem` for an unfit one."""
    with _problem_if_unfit("name"):
        return identity.read_name(text)


def read_new_password(text: str) -> str:
    """Return a password that may be chosen. Raises `Problem` for one that may not."""
    with _problem_if_unfit("password"):
        return identity.read_new_password(text)


@contextlib.contextmanager
def _problem_if_unfit(member: str) -> Iterator[None]:
    try:
        yield
    except identity.Unfit as error:
        raise Problem(
            "invalid_body", f"{str(error).removesuffix('.')} - at `$.{member}`."
        ) from None
