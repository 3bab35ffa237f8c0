"""The OpenAPI 3.1 document, made from the table of endpoints."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from microfin_api.endpoint import Answer, Endpoint, Parameter
from microfin_api.http.problems import CATALOGUE, MEDIA_TYPE, ProblemDocument

_REFERENCE: Final = "#/components/schemas/{name}"
_HEADERS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "Idempotency-Key": ("The key that a repeat must carry.", {"type": "string"}),
    "Idempotency-Replayed": (
        "Sent as true if an earlier request with this key was decided.",
        {"type": "string", "enum": ["true"]},
    ),
    "Location": ("The address of the operation, or of the new account.", {"type": "string"}),
    "Set-Cookie": ("The cookie sessionId.", {"type": "string"}),
}
_INTRODUCTION: Final = """\
Amounts are exact decimals: requests carry them as JSON numbers or strings, answers as strings.
Every request that moves money or opens an account accepts an `Idempotency-Key`: repeat it with its
key as often as you like, and it takes effect once. If the outcome takes longer than a few seconds,
the answer is 202; ask at its `Location` then. A trailing slash is accepted on every path. Errors
are `application/problem+json`, and `/docs/errors` explains each code. Every answer has an
`X-Request-Id`: yours, if you sent one of 8 to 64 letters, digits, dots, dashes and underscores.
"""


def make_document(endpoints: Iterable[Endpoint], version: str) -> dict[str, Any]:
    """Return the OpenAPI document of `endpoints`."""
    endpoints = tuple(endpoints)
    paths: defaultdict[str, dict[str, Any]] = defaultdict(dict)
    for endpoint in endpoints:
        paths[endpoint.path][endpoint.method.lower()] = _operation(endpoint)
    _, schemas = msgspec.json.schema_components(_carried(endpoints), ref_template=_REFERENCE)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "microfin",
            "version": version,
            "summary": "Accounts, deposits, withdrawals and transfers.",
            "description": _INTRODUCTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": tag} for tag in dict.fromkeys(endpoint.tag for endpoint in endpoints)],
        "paths": dict(paths),
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "cookie": {"type": "apiKey", "in": "cookie", "name": "sessionId"},
                "bearer": {"type": "http", "scheme": "bearer"},
            },
        },
    }


def _carried(endpoints: Iterable[Endpoint]) -> list[type[msgspec.Struct]]:
    carried: dict[type[msgspec.Struct], None] = {ProblemDocument: None}
    for endpoint in endpoints:
        if endpoint.body is not None:
            carried[endpoint.body] = None
        for answer in endpoint.answers.values():
            carried.update(dict.fromkeys(answer.carries))
    return list(carried)


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": endpoint.name,
        "summary": endpoint.summary,
        "tags": [endpoint.tag],
        "responses": _responses(endpoint),
        "security": [{"cookie": []}, {"bearer": []}] if endpoint.signed_in else [],
    }
    if endpoint.parameters:
        operation["parameters"] = [_parameter(parameter) for parameter in endpoint.parameters]
    if endpoint.body is not None:
        operation["requestBody"] = {
            "required": endpoint.body_required,
            "content": {"application/json": {"schema": _reference(endpoint.body)}},
        }
    if endpoint.deprecated:
        operation["deprecated"] = True
    return operation


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.place,
        "description": parameter.description,
        "required": parameter.required or parameter.place == "path",
        "schema": dict(parameter.schema),
    }


def _responses(endpoint: Endpoint) -> dict[str, Any]:
    responses = {str(status): _answer(answer) for status, answer in endpoint.answers.items()}
    by_status: defaultdict[int, list[str]] = defaultdict(list)
    for code in endpoint.problems:
        for status in _statuses(endpoint, code):
            by_status[status].append(code)
    for status, codes in by_status.items():
        responses[str(status)] = _problems(status, codes)
    return dict(sorted(responses.items()))


def _statuses(endpoint: Endpoint, code: str) -> Sequence[int]:
    status = CATALOGUE[code].status
    # A transfer's missing receiver is a rejection (422), its missing sender is not found (404).
    receiver_too = code == "account_not_found" and "currency_mismatch" in endpoint.problems
    return (status, 422) if receiver_too else (status,)


def _problems(status: int, codes: Sequence[str]) -> dict[str, Any]:
    headers = ["Retry-After"] if status in (429, 503) else []
    meaning = "Seconds to wait."
    if not all(CATALOGUE[code].repeat for code in codes):
        meaning += " Without it, repeating does not help."
    return {
        "description": ", ".join(codes),
        "headers": {
            name: {"description": meaning, "schema": {"type": "string"}} for name in headers
        },
        "content": {MEDIA_TYPE: {"schema": _reference(ProblemDocument)}},
    }


def _answer(answer: Answer) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if answer.carries:
        references = [_reference(carried) for carried in answer.carries]
        schema = references[0] if len(references) == 1 else {"anyOf": references}
        content["application/json"] = {"schema": schema}
    if answer.other_media_type:
        content[answer.other_media_type] = {"schema": {}}
    response: dict[str, Any] = {"description": answer.description, "content": content}
    if answer.headers:
        response["headers"] = {
            name: {"description": _HEADERS[name][0], "schema": _HEADERS[name][1]}
            for name in answer.headers
        }
    return response


def _reference(struct: type[msgspec.Struct]) -> dict[str, str]:
    return {"$ref": _REFERENCE.format(name=struct.__name__)}
