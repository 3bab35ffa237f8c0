"""Whether this process lives and is ready, and its metrics."""

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import Response

from microfin_api.http.answers import Health, answer
from microfin_api.services import Services


async def healthz(request: Request, services: Services) -> Response:  # noqa: ARG001 - every endpoint's form
    """Report that the process lives."""
    return answer(Health(status="ok"))


async def readyz(request: Request, services: Services) -> Response:  # noqa: ARG001 - every endpoint's form
    """Report whether requests may be sent here, what is missing, and what slows answers."""
    missing, degraded = services.missing(), services.degraded()
    if missing:
        health = Health(status="not ready", missing=missing, degraded=degraded)
        return answer(health, 503, {"Retry-After": "1"})
    return answer(Health(status="ready", degraded=degraded))


async def show_metrics(request: Request, services: Services) -> Response:  # noqa: ARG001 - every endpoint's form
    """Show the metrics in Prometheus' text format."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
