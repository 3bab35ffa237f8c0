"""The description of one endpoint, from which its route and its documentation are made."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from microfin_api.services import Services

Handler = Callable[[Request, Services], Awaitable[Response]]
Method = Literal["GET", "POST", "DELETE"]


class Parameter(msgspec.Struct, frozen=True):
    """A query or header parameter, with its JSON schema."""

    name: str
    place: Literal["query", "header", "path"]
    description: str
    schema: Mapping[str, Any]
    required: bool = False


class Answer(msgspec.Struct, frozen=True):
    """One answer other than a problem: its bodies, other media type, and headers."""

    description: str
    carries: tuple[type[msgspec.Struct], ...] = ()
    other_media_type: str = ""
    headers: tuple[str, ...] = ()


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One method of one path.

    `answers` maps each status to its answer, `problems` are codes of the catalogue. `body` is the
    JSON body of a request. `safe`: a HEAD request may be answered like a GET.
    """

    method: Method
    path: str
    handler: Handler
    name: str
    summary: str
    tag: str
    answers: Mapping[int, Answer]
    problems: tuple[str, ...] = ()
    body: type[msgspec.Struct] | None = None
    body_required: bool = True
    parameters: tuple[Parameter, ...] = ()
    signed_in: bool = True
    safe: bool = True
    deprecated: bool = False
