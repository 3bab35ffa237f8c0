"""The API's router beside Starlette's: finding the endpoint of each path without parameters."""

import time
from typing import Any, Final

from starlette.applications import Starlette
from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from microfin_api.app import ExactRouter
from microfin_api.routes import ENDPOINTS
from microfin_local.benchmarks.replacements.side_by_side import Measure, compare

PATHS: Final = ("/api/deposit", "/api/transfer", "/api/me")
_REQUESTS: Final = 50_000


class _Nothing:
    """Answers no request."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Do nothing."""


async def measure_exact_router(runs: int, requests: int = _REQUESTS) -> dict[str, Any]:
    """Return the microseconds of CPU until a request has reached its endpoint, by path."""
    paths = dict.fromkeys(endpoint.path for endpoint in ENDPOINTS)
    routes = [Route(path, _Nothing(), name=path) for path in paths]
    exact = ExactRouter(routes, Starlette().router.lifespan_context)
    library = Router(routes, redirect_slashes=False)
    compared = {}
    for path in PATHS:
        compared[path] = await compare(
            _routing(exact, path, requests), _routing(library, path, requests), runs=runs
        )
    return {"routes": len(routes), "request": compared}


def _routing(router: Router, path: str, requests: int) -> Measure:
    method = "GET" if path == "/api/me" else "POST"

    async def measure() -> float:
        began = time.process_time()
        for _ in range(requests):
            scope: Scope = {"type": "http", "method": method, "path": path, "root_path": ""}
            await router(scope, _no_message, _no_answer)
        return 1_000_000 * (time.process_time() - began) / requests

    return measure


async def _no_message() -> Any:
    raise NotImplementedError


async def _no_answer(_message: Any) -> None:
    raise NotImplementedError
