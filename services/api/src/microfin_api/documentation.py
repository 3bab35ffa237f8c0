"""The documentation that the API serves itself: the OpenAPI document, and pages made from it.

The pages are plain HTML of our own, without scripts and without foreign files, so that they
work offline and under the strictest content security policy.
"""

from base64 import b64encode
from collections.abc import Iterable
from hashlib import sha256
from html import escape
from importlib.metadata import version
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from microfin_api.endpoint import Endpoint
from microfin_api.http.problems import CATALOGUE, ProblemKind
from microfin_api.openapi import make_document
from microfin_api.services import Services

_STYLE: Final = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1, h2, h3 { line-height: 1.2; }
h3 { margin-top: 2.5rem; border-top: 1px solid #8886; padding-top: 1rem; }
code, pre { font-family: ui-monospace, monospace; font-size: .9em; }
pre { overflow-x: auto; padding: .75rem; background: #8882; border-radius: .4rem; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0; display: block; overflow-x: auto; }
th, td { text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0; }
th { font-weight: 600; }
tr + tr td { border-top: 1px solid #8884; }
.method { font-weight: 700; }
.deprecated { text-decoration: line-through; }
""".strip()

_MARKDOWN_START: Final = """\
# Errors

<!-- Made from services/api/src/microfin_api/http/problems.py by `make reference`; a test fails
where it is stale. -->

Every error is `application/problem+json` (RFC 9457) with the members `type`, `title`, `status`,
`code` and `detail`. A code never changes its meaning. Where there is an operation, `operationId`
names it and `operationStatus` says how it ended: `rejected`, `refunded` (a transfer whose amount
came back) or `unknown`.

| code | status | what is wrong | what to do |
|---|---|---|---|
"""

STYLE_HASH: Final = b64encode(sha256(_STYLE.encode()).digest()).decode()
"""What a content security policy must allow for these pages."""


class Documents(msgspec.Struct, frozen=True):
    """The documents as they are served."""

    openapi: bytes
    page: str
    problems: str

    @classmethod
    def of(cls, endpoints: Iterable[Endpoint]) -> "Documents":
        """Make the documents of `endpoints`."""
        document = make_document(endpoints, version("microfin-api"))
        return cls(openapi_text(document), _page(document), _problems_page())


def openapi_text(document: dict[str, Any]) -> bytes:
    """Return the document as it is served and committed."""
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


async def openapi_document(request: Request, services: Services) -> Response:  # noqa: ARG001 - every endpoint's form
    """Show the OpenAPI document."""
    return Response(request.app.state.documents.openapi, media_type="application/json")


async def documentation_page(request: Request, services: Services) -> Response:  # noqa: ARG001 - every endpoint's form
    """Show the OpenAPI document to people."""
    return HTMLResponse(request.app.state.documents.page)


async def problems_page(request: Request, services: Services) -> Response:  # noqa: ARG001 - every endpoint's form
    """Show the catalogue of problems."""
    return HTMLResponse(request.app.state.documents.problems)


def problems_markdown() -> str:
    """Return the catalogue as `docs/reference/errors.md`."""
    rows = [
        f"| `{kind.code}` | {_statuses(kind)} | {kind.title} | {kind.advice} |"
        for kind in CATALOGUE.values()
    ]
    return _MARKDOWN_START + "\n".join(rows) + "\n"


_FURTHER_STATUSES = {"account_not_found": ("422",), "malformed_request": ("414", "431")}


def _statuses(kind: ProblemKind) -> str:
    return ", ".join([str(kind.status), *_FURTHER_STATUSES.get(kind.code, ())])


def _html(title: str, body: str) -> str:
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head><body>{body}</body></html>"
    )


def _problems_page() -> str:
    rows = "".join(
        f'<tr id="{kind.code}"><td><code>{kind.code}</code></td><td>{_statuses(kind)}</td>'
        f"<td>{escape(kind.title)}</td><td>{escape(kind.advice)}</td></tr>"
        for kind in CATALOGUE.values()
    )
    return _html(
        "microfin: errors",
        '<p><a href="/docs">microfin</a></p><h1>Errors</h1><p>Every error is '
        "<code>application/problem+json</code>; a code never changes its meaning.</p>"
        "<table><tr><th>code</th><th>status</th><th>what is wrong</th><th>what to do</th></tr>"
        f"{rows}</table>",
    )


def _page(document: dict[str, Any]) -> str:
    info = document["info"]
    operations = "".join(
        _operation(method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    )
    schemas = "".join(
        f'<h3 id="{name}"><code>{name}</code></h3>{_schema(schema)}'
        for name, schema in document["components"]["schemas"].items()
    )
    return _html(
        "microfin: API",
        f"<h1>{info['title']} {info['version']}</h1><p>{escape(info['description'])}</p>"
        '<p><a href="/openapi.json">OpenAPI document</a> · <a href="/docs/errors">errors</a> · '
        "sign in with <code>POST /api/signin</code> and send the session as the cookie "
        f"<code>sessionId</code> or as a Bearer token</p>{operations}"
        f"<h2>What is sent</h2>{schemas}",
    )


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    crossed = ' class="deprecated"' if operation.get("deprecated") else ""
    body = operation.get("requestBody")
    carried = body["content"]["application/json"]["schema"] if body else None
    return (
        f'<h3 id="{operation["operationId"]}"><span class="method">{method.upper()}</span> '
        f"<code{crossed}>{escape(path)}</code></h3><p>{escape(operation['summary'])}.</p>"
        + (f"<p>Body: {_type(carried)}</p>" if carried else "")
        + _parameters(operation.get("parameters", []))
        + _responses(operation["responses"])
    )


def _parameters(parameters: list[dict[str, Any]]) -> str:
    rows = "".join(
        f"<tr><td><code>{escape(parameter['name'])}</code></td><td>{parameter['in']}</td>"
        f"<td>{escape(parameter['description'])}</td></tr>"
        for parameter in parameters
    )
    return f"<table>{rows}</table>" if rows else ""


def _responses(responses: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{status}</td><td>{_codes(status, response['description'])}</td><td>"
        + ", ".join(
            _type(content["schema"]) or f"<code>{escape(media_type)}</code>"
            for media_type, content in response["content"].items()
            if status < "300"
        )
        + "</td></tr>"
        for status, response in responses.items()
    )
    return f"<table>{rows}</table>"


def _codes(status: str, description: str) -> str:
    if status < "300" or description.partition(",")[0] not in CATALOGUE:
        return escape(description)
    return ", ".join(
        f'<a href="/docs/errors#{code}"><code>{code}</code></a>' for code in description.split(", ")
    )


def _schema(schema: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td><code>{escape(name)}</code>{'' if name in schema.get('required', ()) else ' ?'}"
        f"</td><td>{_type(field)}</td><td>{escape(field.get('description', ''))}</td></tr>"
        for name, field in schema.get("properties", {}).items()
    )
    return f"<p>{escape(schema.get('description', ''))}</p><table>{rows}</table>"


def _type(schema: dict[str, Any]) -> str:
    """Return a schema in a word or two, or nothing if it names no type."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f'<a href="#{name}"><code>{name}</code></a>'
    for union in ("anyOf", "oneOf"):
        if union in schema:
            return " or ".join(_type(option) for option in schema[union])
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}"
    if "enum" in schema and len(schema["enum"]) <= 8:
        return ", ".join(f"<code>{escape(str(value))}</code>" for value in schema["enum"])
    return escape(schema.get("type", ""))
