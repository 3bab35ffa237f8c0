"""The worker's HTTP: `/healthz`, `/readyz`, `/status`, `/metrics`."""

import contextlib
from collections.abc import Callable, Generator

import msgspec
import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from microfin.kafka.client import KAFKA
from microfin.process.renewed_tls import tls_fault
from microfin.process.settings import WorkerSettings
from microfin_worker.status import Status


class HealthServer(uvicorn.Server):
    """Serves next to the worker, which handles the signals itself."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Install no handlers."""
        yield


def health_server(
    settings: WorkerSettings,
    status: Status,
    topic_partitions: Callable[[], int],
    degraded: Callable[[], list[str]],
) -> HealthServer:
    """Return the server that shows `status`.

    `topic_partitions` returns how many partitions the topic has, `degraded` what makes answers
    slower.
    """

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        if status.ready:
            return PlainTextResponse("\n".join(["ready", *degraded(), ""]))
        return PlainTextResponse(f"{status.state}: {_reason(status)}\n", status_code=503)

    async def show_status(_: Request) -> Response:
        status.topic_partitions = topic_partitions()
        status.degraded = degraded()
        shown = msgspec.structs.replace(status, reason=_reason(status))
        return Response(msgspec.json.encode(shown), media_type="application/json")

    async def show_metrics(_: Request) -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    application = Starlette(
        routes=[
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/status", show_status),
            Route("/metrics", show_metrics),
        ]
    )
    return HealthServer(
        uvicorn.Config(
            application,
            host=settings.worker_host,
            port=settings.worker_port,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
        )
    )


def _reason(status: Status) -> str:
    """Return the reason of a state, and which certificate is refused if the log is out of reach.

    A client of Kafka only reports that it could not connect, in whatever state the worker is.
    """
    fault = "" if status.ready else tls_fault(KAFKA)
    if fault in status.reason:
        return status.reason
    return "; ".join(filter(None, (status.reason, fault)))
