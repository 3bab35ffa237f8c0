"""The catalogue of all problems that an answer can report, behind `docs/reference/errors.md`.

Answers are `application/problem+json` (RFC 9457). A code never changes its meaning; its `type` is
the catalogue's page under `/docs/errors`.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from starlette.responses import Response

from microfin_api.http.request_id import REQUEST_ID

MEDIA_TYPE: Final = "application/problem+json"


class ProblemKind(msgspec.Struct, frozen=True):
    """One kind of problem: its stable code, HTTP status, what is wrong and what to do.

    `repeat` is False for a 503 that only an operator can end: such an answer has no Retry-After.
    """

    code: str
    status: int
    title: str
    advice: str
    repeat: bool = True


_KINDS: Final = (
    # The request cannot be read -------------------------------------------------------------
    ProblemKind(
        "malformed_json",
        400,
        "The body is not JSON.",
        "Send one JSON object in UTF-8, without NaN, Infinity, lone surrogates or a key twice.",
    ),
    ProblemKind(
        "malformed_request",
        400,
        "The request is not readable HTTP.",
        "Fix its address, its headers or its body's length. Status 414 means that the address is "
        "too long, 431 that the headers are too large.",
    ),
    ProblemKind(
        "invalid_body",
        400,
        "The body does not fit.",
        "Send the fields with the types that the documentation names, and no others.",
    ),
    ProblemKind(
        "invalid_amount",
        400,
        "The amount is not a positive, exact decimal.",
        'Send a JSON number or string such as 12.50 or "12.50": digits with at most one point, no '
        "sign, no exponent, more than zero.",
    ),
    ProblemKind(
        "invalid_account_number",
        400,
        "That is not an account number.",
        "Check the 12 digits; the last is a check digit, so one wrong digit is noticed.",
    ),
    ProblemKind(
        "same_account",
        400,
        "Sender and receiver are the same account.",
        "Name two different accounts.",
    ),
    ProblemKind(
        "invalid_parameter",
        400,
        "A parameter of the query does not fit.",
        "Send the parameters that the documentation names, as it describes them, and no others.",
    ),
    ProblemKind(
        "invalid_idempotency_key",
        400,
        "The Idempotency-Key cannot be used.",
        "Send one header of 1 to 255 printable ASCII characters, in double quotes or without.",
    ),
    ProblemKind(
        "request_timeout",
        408,
        "The request did not arrive completely in time.",
        "Send head and body without pauses, each within 10 seconds. Nothing was done.",
    ),
    ProblemKind(
        "body_too_large",
        413,
        "The body is too large.",
        "Send less: a request of this API has a few hundred bytes.",
    ),
    ProblemKind(
        "encoded_body",
        415,
        "The body is encoded.",
        "Send it as it is, without Content-Encoding.",
    ),
    ProblemKind(
        "not_json",
        415,
        "The body's content type is not JSON.",
        "Send the header Content-Type: application/json.",
    ),
    # Who asks -------------------------------------------------------------------------------
    ProblemKind(
        "not_signed_in",
        401,
        "The request has no valid session.",
        "Sign in, and send the session as the cookie sessionId or as a Bearer token.",
    ),
    ProblemKind(
        "sign_in_failed",
        401,
        "E-mail address or password is wrong.",
        "Check both; the answer does not say which one is wrong.",
    ),
    ProblemKind(
        "wrong_password",
        403,
        "The current password is wrong.",
        "Send the password that the user signs in with now. Nothing was changed.",
    ),
    ProblemKind(
        "cross_origin",
        403,
        "A request that changes something came with a cookie from another origin.",
        "Send it from our own pages, or with the session as a Bearer token.",
    ),
    ProblemKind(
        "email_taken",
        409,
        "There is a user with this e-mail address.",
        "Sign in, or sign up with another address.",
    ),
    ProblemKind(
        "too_many_sign_ins",
        429,
        "Too many sign-ins failed.",
        "Wait as long as Retry-After says.",
    ),
    ProblemKind(
        "too_many_sign_ups",
        429,
        "Too many people signed up from this address.",
        "Wait as long as Retry-After says.",
    ),
    # What is asked for ----------------------------------------------------------------------
    ProblemKind("not_found", 404, "There is nothing here.", "See /docs for all paths."),
    ProblemKind(
        "method_not_allowed",
        405,
        "The path does not accept this method.",
        "Use one that the header Allow names.",
    ),
    ProblemKind(
        "account_not_found",
        404,
        "There is no such account.",
        "Check the number. An account of somebody else is treated as missing, except as the "
        "receiver of a transfer; a missing receiver is a 422. If money was to move, the "
        "Idempotency-Key is used up: send the right number with a new one.",
    ),
    ProblemKind(
        "session_not_found",
        404,
        "There is no such session.",
        "Use the id of a session that GET /api/sessions lists; this one may have ended meanwhile.",
    ),
    ProblemKind(
        "operation_not_found",
        404,
        "There is no such operation.",
        "Check the id. Somebody else's operation is treated as missing. To ask for one that was "
        "just answered with 202, use the whole address in that answer's Location.",
    ),
    ProblemKind(
        "hold_not_found",
        404,
        "There is no such hold.",
        "Use the holdId of an answer. A hold of somebody else's account is treated as missing. The "
        "Idempotency-Key is used up: send the right id with a new one.",
    ),
    ProblemKind(
        "too_many_accounts",
        409,
        "The user has reached the limit of accounts.",
        "Use an existing account. This request was not sent. The operation that operationId names "
        "shows whether an earlier request with its Idempotency-Key takes effect.",
    ),
    # The operation was rejected -------------------------------------------------------------
    ProblemKind(
        "key_reused",
        422,
        "This Idempotency-Key was used for another request.",
        "Use a new key for every new operation; repeat a key only with the very same request.",
    ),
    ProblemKind(
        "insufficient_funds",
        422,
        "The account has too little available.",
        "The members needed and available show what was asked for and what was there, without what "
        "holds set aside; needed is left out if no account could ever hold that much.",
    ),
    ProblemKind(
        "hold_ended",
        422,
        "The hold has ended.",
        "It was captured or released, or its time is over. What it had left is available.",
    ),
    ProblemKind(
        "hold_exceeded",
        422,
        "The hold has less left than was to be captured.",
        "The members needed and available show what was asked for and what the hold has left. "
        "Capture that much at most, or leave the amount out to capture all of it.",
    ),
    ProblemKind(
        "account_frozen",
        422,
        "The account is frozen.",
        "Ask the bank to unfreeze it; then use a new key.",
    ),
    ProblemKind("account_closed", 422, "The account is closed.", "Use another account."),
    ProblemKind(
        "balance_limit",
        422,
        "The balance would be higher than an account may have.",
        "Move a smaller amount.",
    ),
    ProblemKind(
        "balance_not_zero",
        422,
        "An account can only be closed when its balance is zero.",
        "Withdraw or transfer the rest first.",
    ),
    ProblemKind(
        "currency_mismatch",
        422,
        "The receiving account has another currency.",
        "Transfer between accounts of one currency.",
    ),
    ProblemKind(
        "expired",
        422,
        "The command reached the log after its deadline and had no effect.",
        "Ask again with a new Idempotency-Key.",
    ),
    ProblemKind(
        "no_free_number",
        422,
        "No free account number was found.",
        "Ask again with a new Idempotency-Key.",
    ),
    ProblemKind(
        "quarantined",
        422,
        "The worker could not read the command; it had no effect.",
        "Ask again with a new Idempotency-Key, and inform the operator.",
    ),
    ProblemKind(
        "state_unchanged",
        422,
        "The account is in that state already.",
        "Nothing needs to be done.",
    ),
    ProblemKind(
        "too_many_decimals",
        422,
        "The amount has more decimals than the account's currency.",
        "Send no more decimals than the currency has: 2 for EUR, 0 for JPY.",
    ),
    ProblemKind(
        "unknown_currency",
        422,
        "No account can have this currency.",
        "Send a code of ISO 4217 in capitals, such as EUR.",
    ),
    # The platform cannot now ----------------------------------------------------------------
    ProblemKind(
        "internal",
        500,
        "Something broke on our side.",
        "Repeat with the same Idempotency-Key; if it persists, inform the operator.",
    ),
    ProblemKind(
        "overloaded",
        503,
        "Too many requests are under way.",
        "Wait as long as Retry-After says, then repeat with the same Idempotency-Key. Nothing was "
        "done.",
    ),
    ProblemKind(
        "unavailable",
        503,
        "A component of the platform does not answer.",
        "Wait as long as Retry-After says, then repeat, with the same Idempotency-Key if there was "
        "one.",
    ),
    ProblemKind(
        "archive_unavailable",
        503,
        "Old entries and operations cannot be read now.",
        "Wait as long as Retry-After says, then repeat. Everything newer can be read, and money "
        "moves.",
    ),
    ProblemKind(
        "archive_unusable",
        503,
        "Old entries and operations cannot be read.",
        "Inform the operator: repeating does not help. Everything newer can be read, and money "
        "moves.",
        repeat=False,
    ),
    ProblemKind(
        "unknown",
        503,
        "It is not known yet whether the operation takes effect.",
        "Repeat with the same Idempotency-Key, which is safe: it takes effect once at most. Or ask "
        "for the operation by its id.",
    ),
)

CATALOGUE: Final[dict[str, ProblemKind]] = {kind.code: kind for kind in _KINDS}

RETRY_SECONDS: Final = 1
"""Retry-After if nothing better is known."""

_encode = msgspec.json.Encoder().encode


class Problem(Exception):
    """Ends a request with an answer that says what is wrong. `members` are added to its JSON."""

    def __init__(
        self,
        code: str,
        detail: str = "",
        *,
        status: int = 0,
        headers: Mapping[str, str] | None = None,
        **members: Any,
    ) -> None:
        super().__init__(code)
        self.kind = CATALOGUE[code]
        self.status = status or self.kind.status
        self.detail = detail
        self.headers = dict(headers or {})
        self.members = members

    def answer(self) -> Response:
        """Return the response."""
        if self.status == 503 and self.kind.repeat:
            self.headers.setdefault("Retry-After", str(RETRY_SECONDS))
        return Response(self.body(), self.status, media_type=MEDIA_TYPE, headers=self.headers)

    def body(self) -> bytes:
        """Return the answer's body."""
        return _encode(self.document())

    def document(self) -> dict[str, Any]:
        """Return the problem's JSON object."""
        document = {
            "type": f"/docs/errors#{self.kind.code}",
            "title": self.kind.title,
            "status": self.status,
            "code": self.kind.code,
            "detail": self.detail or self.kind.advice,
            **self.members,
        }
        request_id = REQUEST_ID.get()
        if request_id:
            document["requestId"] = request_id
        return document


class ProblemDocument(msgspec.Struct, rename="camel"):
    """What is wrong and what to do (RFC 9457). Some codes have further members.

    `requestId` is also in the header X-Request-Id and in our log: name it when you ask us. The
    problems of an operation have its id in `operationId`, and its `operationStatus`: rejected,
    refunded (its amount came back) or unknown.
    """

    type: str
    title: str
    status: int
    code: str
    detail: str
    request_id: str | msgspec.UnsetType = msgspec.UNSET
    operation_id: str | msgspec.UnsetType = msgspec.UNSET
    operation_status: str | msgspec.UnsetType = msgspec.UNSET
    idempotency_key: str | msgspec.UnsetType = msgspec.UNSET
    needed: str | msgspec.UnsetType = msgspec.UNSET
    available: str | msgspec.UnsetType = msgspec.UNSET
