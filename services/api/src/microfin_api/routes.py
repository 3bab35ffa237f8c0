"""The table of all endpoints, from which the routes and the OpenAPI document are made."""

from typing import Any, Final, get_args

from microfin.ledger.operation import Kind
from microfin.postgres import statement_periods
from microfin_api import documentation
from microfin_api.commands.idempotency import HEADER, REPLAYED
from microfin_api.endpoint import Answer, Endpoint, Parameter
from microfin_api.endpoints import (
    accounts,
    health,
    holds,
    money_movement,
    operation_list,
    operations,
    sessions,
    sign_in,
    statements,
)
from microfin_api.http import answers, bodies

_TIME: Final = {"type": "string", "format": "date-time"}

_KEY: Final = Parameter(
    HEADER,
    "header",
    "Makes a repeat safe: the same request with the same key takes effect once and gets the first "
    "answer. Without this header the API makes a key and returns it.",
    {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[\\x20-\\x7e]+$"},
)
_PREFER: Final = Parameter(
    "Prefer",
    "header",
    "respond-async asks for a 202 as soon as the operation is durable (RFC 7240).",
    {"type": "string", "examples": ["respond-async"]},
)
_NUMBER: Final = Parameter(
    "number", "path", "The account number.", {"type": "string", "pattern": "^[0-9]{12}$"}
)
_OPERATION: Final = Parameter(
    "operation", "path", "The operation's id.", {"type": "string", "pattern": "^[0-9a-f]{32}$"}
)
_HOLD: Final = Parameter(
    "hold", "path", "The holdId.", {"type": "string", "pattern": f"^{holds.HOLD_ID}$"}
)
_AT: Final = Parameter(
    "at", "query", "The token in a 202's Location.", {"type": "string", "maxLength": 128}
)
_SESSION: Final = Parameter(
    "session",
    "path",
    "The session's id in the list.",
    {"type": "string", "pattern": "^[0-9a-f]{32}$"},
)
_EVERYWHERE: Final = Parameter(
    "everywhere",
    "query",
    "End all sessions of the user; its value may be left out.",
    {"type": "string", "enum": ["", "true", "false"]},
)
_ORDER: Final = Parameter(
    "order",
    "query",
    "Which come first.",
    {"type": "string", "enum": ["newest", "oldest"]},
)
_FROM: Final = Parameter(
    "from", "query", "The beginning of the period, included (RFC 3339).", _TIME
)
_TO: Final = Parameter("to", "query", "The end of the period, not included (RFC 3339).", _TIME)
_KIND: Final = Parameter(
    "kind", "query", "Only this kind.", {"type": "string", "enum": list(get_args(Kind))}
)
_STATEMENT: Final = (
    _NUMBER,
    Parameter(
        "cursor",
        "query",
        "The nextCursor of the previous page.",
        {"type": "string", "pattern": "^[1-9][0-9]{0,17}$"},
    ),
    Parameter(
        "limit",
        "query",
        f"Entries on a page; {statements.LIMIT_USUAL} by default. Without a limit, CSV has all.",
        {"type": "integer", "minimum": 1, "maximum": statements.LIMIT_MOST},
    ),
    _FROM,
    _TO,
    _KIND,
    _ORDER,
    Parameter(
        "totals",
        "query",
        "Add what the period adds up to; its value may be left out. At most "
        f"{statement_periods.TOTALLED_MOST} entries, and not in CSV.",
        {"type": "string", "enum": ["", "true", "false"]},
    ),
    Parameter("at", "query", "Return the balance at this moment instead (RFC 3339).", _TIME),
)

_PAGE_OF_OPERATIONS: Final = (
    Parameter(
        "account",
        "query",
        "Only of this account. Users with more than "
        f"{operation_list.ACCOUNTS_MOST} accounts must name one.",
        {"type": "string", "pattern": "^[0-9]{12}$"},
    ),
    _KIND,
    Parameter(
        "status",
        "query",
        "Only with this status.",
        {"type": "string", "enum": list(operation_list.STATUSES)},
    ),
    Parameter("reference", "query", "Only with exactly this reference.", {"type": "string"}),
    Parameter("metadata", "query", "Only with a pair of this name.", {"type": "string"}),
    _FROM,
    _TO,
    _ORDER,
    Parameter(
        "limit",
        "query",
        f"Operations on a page; {operation_list.LIMIT_USUAL} by default.",
        {"type": "integer", "minimum": 1, "maximum": operation_list.LIMIT_MOST},
    ),
    Parameter(
        "cursor",
        "query",
        "The nextCursor of the previous page.",
        {"type": "string", "maxLength": operation_list.CURSOR_MOST},
    ),
)

_PAGE_OF_HOLDS: Final = (
    Parameter(
        "account",
        "query",
        "The account.",
        {"type": "string", "pattern": "^[0-9]{12}$"},
        required=True,
    ),
    Parameter(
        "cursor",
        "query",
        "The nextCursor of the previous page.",
        {"type": "string", "pattern": f"^{holds.CURSOR}$"},
    ),
    Parameter(
        "limit",
        "query",
        f"Holds on a page; {holds.LIMIT_USUAL} by default.",
        {"type": "integer", "minimum": 1, "maximum": holds.LIMIT_MOST},
    ),
)

_PAGE_OF_ACCOUNTS: Final = (
    Parameter(
        "cursor",
        "query",
        "The nextCursor of the previous page.",
        {"type": "string", "pattern": f"^{accounts.CURSOR}$"},
    ),
    Parameter(
        "limit",
        "query",
        f"Accounts on a page; {accounts.LIMIT_MOST} by default.",
        {"type": "integer", "minimum": 1, "maximum": accounts.LIMIT_MOST},
    ),
)

_READ_PROBLEMS: Final = ("invalid_parameter", "not_signed_in", "internal", "unavailable")
_ARCHIVE_PROBLEMS: Final = ("archive_unavailable", "archive_unusable")
_CHANGE_PROBLEMS: Final = (
    "request_timeout",
    "invalid_parameter",
    "encoded_body",
    "malformed_json",
    "invalid_body",
    "body_too_large",
    "not_json",
    "cross_origin",
    "internal",
    "overloaded",
    "unavailable",
)
_OPERATION_PROBLEMS: Final = (
    *_CHANGE_PROBLEMS,
    "not_signed_in",
    "invalid_idempotency_key",
    "key_reused",
    "unknown",
    "expired",
    "quarantined",
)
_MOVE_PROBLEMS: Final = (
    *_OPERATION_PROBLEMS,
    "invalid_amount",
    "invalid_account_number",
    "account_not_found",
    "account_frozen",
    "account_closed",
    "balance_limit",
    "insufficient_funds",
    "too_many_decimals",
)
_HOLD_PROBLEMS: Final = tuple(it for it in _MOVE_PROBLEMS if it != "balance_limit")
_END_HOLD_PROBLEMS: Final = (*_OPERATION_PROBLEMS, "hold_not_found", "hold_ended")
_OPEN_PROBLEMS: Final = (
    *_OPERATION_PROBLEMS,
    "unknown_currency",
    "no_free_number",
    "too_many_accounts",
)

_KEYED: Final = (HEADER, REPLAYED)
_ACCEPTED: Final = Answer(
    "Durable, not settled yet", (answers.AcceptedOperation,), headers=(HEADER, "Location")
)
_SIGNED_IN: Final = Answer("Signed in", (answers.SignedIn,), headers=("Set-Cookie",))


def _money_endpoint(
    path: str, summary: str, of: tuple[Parameter, ...] = (), **others: Any
) -> Endpoint:
    return Endpoint(
        method="POST",
        path=path,
        summary=summary,
        tag="money",
        parameters=(*of, _KEY, _PREFER),
        **others,
    )


def _generation_endpoint(method: Any) -> Endpoint:
    return Endpoint(
        method=method,
        path="/api/accountGeneration",
        handler=accounts.generate_account,
        name=f"accountGenerationBy{method.title()}",
        summary="Open an account, as existing clients do; new ones use POST /api/accounts",
        tag="accounts",
        body=bodies.OpenBody if method == "POST" else None,
        body_required=False,
        answers={200: Answer("Opened", (answers.Opened,), headers=_KEYED), 202: _ACCEPTED},
        problems=_OPEN_PROBLEMS,
        parameters=(_KEY,),
        safe=False,
        deprecated=True,
    )


ENDPOINTS: Final[tuple[Endpoint, ...]] = (
    _money_endpoint(
        "/api/deposit",
        "Put money on an account",
        handler=money_movement.deposit,
        name="deposit",
        body=bodies.DepositBody,
        answers={200: Answer("Settled", (answers.Moved,), headers=_KEYED), 202: _ACCEPTED},
        problems=_MOVE_PROBLEMS,
    ),
    _money_endpoint(
        "/api/withdraw",
        "Take money from an account",
        handler=money_movement.withdraw,
        name="withdraw",
        body=bodies.DepositBody,
        answers={200: Answer("Settled", (answers.Moved,), headers=_KEYED), 202: _ACCEPTED},
        problems=_MOVE_PROBLEMS,
    ),
    _money_endpoint(
        "/api/transfer",
        "Move money to another account",
        handler=money_movement.transfer,
        name="transfer",
        body=bodies.TransferBody,
        answers={200: Answer("Settled", (answers.Transferred,), headers=_KEYED), 202: _ACCEPTED},
        problems=(*_MOVE_PROBLEMS, "same_account", "currency_mismatch"),
    ),
    _money_endpoint(
        "/api/holds",
        "Set money of an account aside",
        handler=holds.hold,
        name="hold",
        body=bodies.HoldBody,
        answers={
            201: Answer("Set aside", (answers.HoldMade,), headers=(*_KEYED, "Location")),
            202: _ACCEPTED,
        },
        problems=(*_HOLD_PROBLEMS, "same_account"),
    ),
    _money_endpoint(
        "/api/holds/{hold}/capture",
        "Pay from what was set aside",
        handler=holds.capture,
        name="capture",
        body=bodies.CaptureBody,
        body_required=False,
        answers={200: Answer("Settled", (answers.Captured,), headers=_KEYED), 202: _ACCEPTED},
        problems=(
            *_END_HOLD_PROBLEMS,
            "invalid_amount",
            "account_not_found",
            "account_frozen",
            "account_closed",
            "balance_limit",
            "currency_mismatch",
            "hold_exceeded",
            "too_many_decimals",
        ),
        of=(_HOLD,),
    ),
    _money_endpoint(
        "/api/holds/{hold}/release",
        "Let what was set aside be spent again",
        handler=holds.release,
        name="release",
        body=bodies.ReleaseBody,
        body_required=False,
        answers={200: Answer("Released", (answers.Released,), headers=_KEYED), 202: _ACCEPTED},
        problems=_END_HOLD_PROBLEMS,
        of=(_HOLD,),
    ),
    Endpoint(
        method="GET",
        path="/api/holds",
        handler=holds.list_holds,
        name="listHolds",
        summary="List the open holds of an account",
        tag="money",
        answers={200: Answer("A page of them, those that end first", (answers.HoldList,))},
        problems=(*_READ_PROBLEMS, "account_not_found"),
        parameters=_PAGE_OF_HOLDS,
    ),
    Endpoint(
        method="GET",
        path="/api/holds/{hold}",
        handler=holds.show_hold,
        name="showHold",
        summary="Show a hold",
        tag="money",
        answers={200: Answer("The hold", (answers.HoldView,))},
        problems=(*_READ_PROBLEMS, *_ARCHIVE_PROBLEMS, "hold_not_found"),
        parameters=(_HOLD,),
    ),
    Endpoint(
        method="GET",
        path="/api/accounts/{number}",
        handler=accounts.show_account,
        name="showAccount",
        summary="Show an account",
        tag="accounts",
        answers={200: Answer("The account", (answers.AccountView,))},
        problems=(*_READ_PROBLEMS, "account_not_found"),
        parameters=(_NUMBER,),
    ),
    Endpoint(
        method="GET",
        path="/api/accounts/{number}/entries",
        handler=statements.statement,
        name="showStatement",
        summary="Show an account's entries, newest first, or its balance at a time",
        tag="accounts",
        answers={
            200: Answer(
                "The entries, or with `at` the balance then",
                (answers.Statement, answers.BalanceAt),
                other_media_type="text/csv",
            )
        },
        problems=(*_READ_PROBLEMS, *_ARCHIVE_PROBLEMS, "account_not_found"),
        parameters=_STATEMENT,
    ),
    Endpoint(
        method="GET",
        path="/api/accounts",
        handler=accounts.list_accounts,
        name="listAccounts",
        summary="List own accounts",
        tag="accounts",
        answers={200: Answer("A page of them, oldest first", (answers.AccountList,))},
        problems=(*_READ_PROBLEMS, "invalid_parameter"),
        parameters=_PAGE_OF_ACCOUNTS,
    ),
    Endpoint(
        method="POST",
        path="/api/accounts",
        handler=accounts.open_account,
        name="openAccount",
        summary="Open an account",
        tag="accounts",
        body=bodies.OpenBody,
        body_required=False,
        answers={
            201: Answer("Opened", (answers.Opened,), headers=(*_KEYED, "Location")),
            202: _ACCEPTED,
        },
        problems=_OPEN_PROBLEMS,
        parameters=(_KEY, _PREFER),
    ),
    Endpoint(
        method="GET",
        path="/api/operations",
        handler=operation_list.list_operations,
        name="listOperations",
        summary="List own operations",
        tag="money",
        answers={200: Answer("A page of them", (answers.OperationList,))},
        problems=(*_READ_PROBLEMS, *_ARCHIVE_PROBLEMS, "account_not_found"),
        parameters=_PAGE_OF_OPERATIONS,
    ),
    Endpoint(
        method="GET",
        path="/api/operations/{operation}",
        handler=operations.show_operation,
        name="showOperation",
        summary="Show the state of an operation",
        tag="money",
        answers={200: Answer("The operation", (answers.OperationView,))},
        problems=(*_READ_PROBLEMS, *_ARCHIVE_PROBLEMS, "operation_not_found", "key_reused"),
        parameters=(_OPERATION, _AT),
    ),
    Endpoint(
        method="POST",
        path="/api/signup",
        handler=sign_in.sign_up,
        name="signUp",
        summary="Become a user, and sign in",
        tag="people",
        body=bodies.SignUpBody,
        answers={200: _SIGNED_IN},
        problems=(*_CHANGE_PROBLEMS, "email_taken", "too_many_sign_ins", "too_many_sign_ups"),
        signed_in=False,
    ),
    Endpoint(
        method="POST",
        path="/api/signin",
        handler=sign_in.sign_in,
        name="signIn",
        summary="Sign in",
        tag="people",
        body=bodies.SignInBody,
        answers={200: _SIGNED_IN},
        problems=(*_CHANGE_PROBLEMS, "sign_in_failed", "too_many_sign_ins"),
        signed_in=False,
    ),
    Endpoint(
        method="POST",
        path="/api/signout",
        handler=sign_in.sign_out,
        name="signOut",
        summary="Sign out",
        tag="people",
        answers={200: Answer("Signed out", (answers.SignedOut,), headers=("Set-Cookie",))},
        problems=("not_signed_in", "cross_origin", "invalid_parameter", "internal", "unavailable"),
        parameters=(_EVERYWHERE,),
    ),
    Endpoint(
        method="POST",
        path="/api/password",
        handler=sessions.change_password,
        name="changePassword",
        summary="Change the password, and end all sessions but a new one",
        tag="people",
        body=bodies.PasswordBody,
        answers={200: Answer("Changed", (answers.PasswordChanged,), headers=("Set-Cookie",))},
        problems=(*_CHANGE_PROBLEMS, "not_signed_in", "wrong_password", "too_many_sign_ins"),
    ),
    Endpoint(
        method="GET",
        path="/api/sessions",
        handler=sessions.list_sessions,
        name="listSessions",
        summary="List own sessions",
        tag="people",
        answers={200: Answer("The sessions", (answers.SessionList,))},
        problems=_READ_PROBLEMS,
    ),
    Endpoint(
        method="DELETE",
        path="/api/sessions/{session}",
        handler=sessions.end_session,
        name="endSession",
        summary="End one of one's own sessions",
        tag="people",
        answers={200: Answer("It has ended", (answers.SignedOut,), headers=("Set-Cookie",))},
        problems=(*_READ_PROBLEMS, "cross_origin", "session_not_found"),
        parameters=(_SESSION,),
    ),
    Endpoint(
        method="GET",
        path="/api/me",
        handler=sign_in.me,
        name="me",
        summary="Show who is signed in",
        tag="people",
        answers={200: Answer("The user", (answers.Me,))},
        problems=_READ_PROBLEMS,
    ),
    _generation_endpoint("GET"),
    _generation_endpoint("POST"),
    Endpoint(
        method="GET",
        path="/healthz",
        handler=health.healthz,
        name="healthz",
        summary="Report whether the process lives",
        tag="operating",
        answers={200: Answer("It lives", (answers.Health,))},
        signed_in=False,
    ),
    Endpoint(
        method="GET",
        path="/readyz",
        handler=health.readyz,
        name="readyz",
        summary="Report whether requests may be sent here",
        tag="operating",
        answers={
            200: Answer("Ready", (answers.Health,)),
            503: Answer("Not ready; `missing` says why", (answers.Health,)),
        },
        signed_in=False,
    ),
    Endpoint(
        method="GET",
        path="/metrics",
        handler=health.show_metrics,
        name="metrics",
        summary="Show metrics for Prometheus",
        tag="operating",
        answers={200: Answer("The metrics", other_media_type="text/plain")},
        signed_in=False,
    ),
    Endpoint(
        method="GET",
        path="/openapi.json",
        handler=documentation.openapi_document,
        name="openapi",
        summary="Show this document",
        tag="documentation",
        answers={200: Answer("OpenAPI 3.1", other_media_type="application/json")},
        problems=("invalid_parameter",),
        signed_in=False,
    ),
    Endpoint(
        method="GET",
        path="/docs",
        handler=documentation.documentation_page,
        name="docs",
        summary="Show this document as a page",
        tag="documentation",
        answers={200: Answer("A page", other_media_type="text/html")},
        problems=("invalid_parameter",),
        signed_in=False,
    ),
    Endpoint(
        method="GET",
        path="/docs/errors",
        handler=documentation.problems_page,
        name="docsErrors",
        summary="Show every problem that an answer can report",
        tag="documentation",
        answers={200: Answer("A page", other_media_type="text/html")},
        problems=("invalid_parameter",),
        signed_in=False,
    ),
)
