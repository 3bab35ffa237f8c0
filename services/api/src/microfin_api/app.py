"""The application: finds the endpoint of each request, and answers it."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Iterable
from typing import Final

from starlette.datastructures import State
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from microfin.process import garbage_collection
from microfin.process.settings import ApiSettings
from microfin_api.documentation import Documents
from microfin_api.endpoint import Endpoint
from microfin_api.error_answers import answer_to
from microfin_api.http.parameters import refuse_unknown
from microfin_api.http.problems import Problem
from microfin_api.middleware import RequestMiddleware
from microfin_api.routes import ENDPOINTS
from microfin_api.services import Services

LONGEST_SECONDS: Final = 25.0
"""How long a request may take: longer than its own deadlines, shorter than a proxy waits."""


def create_app(settings: ApiSettings) -> RequestMiddleware:
    """Return the application. Its services start and stop with the server's lifespan.

    Raises `ValueError` if a necessary setting is missing or cannot be read.
    """
    services = Services(settings)
    app = Application(services)
    return RequestMiddleware(app, services.origins, settings.request_limit, services.drain)


class Application:
    """Passes each request to its path's `Dispatcher`, by Starlette's router alone.

    Starlette's own application would put three layers around each request, whose only work here is
    to answer errors: the `Dispatcher` does that itself.
    """

    def __init__(self, services: Services) -> None:
        self.state = State({"documents": Documents.of(ENDPOINTS), "services": services})
        self._services = services
        self._router = Router(
            list(_routes(ENDPOINTS, services)),
            redirect_slashes=False,
            default=_answer_not_found,
            lifespan=self._lifespan,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the lifespan."""
        scope["app"] = self  # endpoints find `state` by it
        await self._router(scope, receive, send)

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: object) -> AsyncIterator[None]:
        await self._services.start()
        garbage_collection.tune()
        try:
            yield
        finally:
            await self._services.stop()


async def _answer_not_found(scope: Scope, receive: Receive, send: Send) -> None:
    await Problem("not_found").answer()(scope, receive, send)


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
        """Answer one request. An error that nobody expects is raised again when it is answered."""
        unexpected: Exception | None = None
        try:
            response = await self._answer(Request(scope, receive, send))
        except Exception as error:  # noqa: BLE001 - uvicorn logs it
            answer = answer_to(error, scope["path"])
            unexpected = error if answer is None else None
            response = answer or Problem("internal").answer()
        await response(scope, receive, send)
        if unexpected is not None:
            raise unexpected

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
