"""The application: the endpoints' routes, and the answers to the errors that they raise."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Iterable
from typing import Final

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from microfin.postgres.archive_reading import ArchiveAway, ArchiveUnusable
from microfin.postgres.connections import DATABASE_ERRORS, is_connection_loss
from microfin.postgres.shards import NotMigrated, WrongShard
from microfin.process import garbage_collection
from microfin.process.settings import ApiSettings
from microfin_api.documentation import Documents
from microfin_api.endpoint import Endpoint
from microfin_api.http.parameters import refuse_unknown
from microfin_api.http.problems import Problem
from microfin_api.middleware import RequestMiddleware
from microfin_api.routes import ENDPOINTS
from microfin_api.services import Services

logger = structlog.get_logger(__name__)

LONGEST_SECONDS: Final = 25.0
"""How long a request may take: longer than its own deadlines, shorter than a proxy waits."""


def create_app(settings: ApiSettings) -> RequestMiddleware:
    """Return the application. Its services start and stop with the server's lifespan.

    Raises `ValueError` if a necessary setting is missing or cannot be read.
    """
    services = Services(settings)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await services.start()
        garbage_collection.tune()
        try:
            yield
        finally:
            await services.stop()

    app = Starlette(
        exception_handlers={
            Problem: _answer_problem,
            ClientDisconnect: _answer_nobody,
            HTTPException: _answer_http_error,
            **dict.fromkeys(DATABASE_ERRORS, _answer_database_error),
            WrongShard: _answer_wrong_shard,
            NotMigrated: _answer_wrong_shard,
            ArchiveAway: _answer_archive_away,
            ArchiveUnusable: _answer_archive_unusable,
            Exception: _answer_unexpected,
        },
    )
    routes = list(_routes(ENDPOINTS, services))
    app.router = Router(routes, redirect_slashes=False, lifespan=lifespan)
    app.state.documents = Documents.of(ENDPOINTS)
    app.state.services = services
    return RequestMiddleware(app, services.origins, settings.request_limit, services.drain)


def _routes(endpoints: Iterable[Endpoint], services: Services) -> Iterable[Route]:
    by_path: defaultdict[str, list[Endpoint]] = defaultdict(list)
    for endpoint in endpoints:
        by_path[endpoint.path].append(endpoint)
    for path, methods in by_path.items():
        yield Route(path, Dispatcher(methods, services), name=path)


class Dispatcher:
    """Serves one path: calls the endpoint of the request's method."""

    def __init__(self, endpoints: Collection[Endpoint], services: Services) -> None:
        self._services = services
        self._by_method: dict[str, Endpoint] = {}
        self._parameters = {
            endpoint.name: tuple(it.name for it in endpoint.parameters if it.place == "query")
            for endpoint in endpoints
        }
        for endpoint in endpoints:
            self._by_method[endpoint.method] = endpoint
            if endpoint.method == "GET" and endpoint.safe:
                self._by_method["HEAD"] = endpoint
        self._allowed = ", ".join(sorted(self._by_method))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        response = await self._answer(Request(scope, receive, send))
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        endpoint = self._by_method.get(request.method)
        if endpoint is None:
            preflight = self._services.origins.preflight(request, self._allowed)
            if preflight is None:
                raise Problem("method_not_allowed", headers={"Allow": self._allowed})
            return preflight
        if request.scope["query_string"] and endpoint.tag != "operating":
            refuse_unknown(request, self._parameters[endpoint.name])
        async with asyncio.timeout(LONGEST_SECONDS):
            return await endpoint.handler(request, self._services)


async def _answer_problem(_: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)  # noqa: S101 - it is registered for it
    return error.answer()


async def _answer_http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - it is registered for it
    code = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}
    problem = Problem(
        code.get(error.status_code, "invalid_body"),
        status=error.status_code,
        headers=error.headers,
    )
    return problem.answer()


async def _answer_database_error(request: Request, error: Exception) -> Response:
    if not is_connection_loss(error):
        logger.error("unexpected error", path=request.url.path, exc_info=error)
        return Problem("internal").answer()
    logger.warning("database unavailable", path=request.url.path, error=repr(error))
    return Problem("unavailable", "The database does not answer.").answer()


async def _answer_wrong_shard(request: Request, error: Exception) -> Response:
    logger.critical("the database is of another shard", path=request.url.path, error=str(error))
    return Problem("unavailable", "The database is of another shard.").answer()


async def _answer_archive_away(request: Request, error: Exception) -> Response:
    logger.warning("archive unavailable", path=request.url.path, error=str(error))
    return Problem("archive_unavailable").answer()


async def _answer_archive_unusable(request: Request, error: Exception) -> Response:
    logger.error("archive unusable", path=request.url.path, error=str(error))
    return Problem("archive_unusable").answer()


async def _answer_nobody(_: Request, __: Exception) -> Response:
    return Response(status_code=400)  # the client hung up before it had sent its body


async def _answer_unexpected(_: Request, __: Exception) -> Response:
    return Problem("internal").answer()
