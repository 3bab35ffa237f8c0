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

from microfin.process.quiet_server import QuietServer
from microfin.process.settings import WorkerSettings
from microfin_worker.status import Status


class HealthServer(QuietServer, uvicorn.Server):
    """Serves next to the worker, which handles the signals itself."""

    def end(self) -> None:
        """Stop serving."""
        self.should_exit = True
        self.look_soon()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Install no handlers."""
        yield


def health_server(
    settings: WorkerSettings,
    status: Status,
    measure: Callable[[], None],
    topic_partitions: Callable[[], int],
    degraded: Callable[[], list[str]],
) -> HealthServer:
    """Return the server that shows `status`. `measure` renews it.

    `topic_partitions` returns how many partitions the topic has, `degraded` what makes answers
    slower.
    """

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        measure()
        if status.ready:
            return PlainTextResponse("\n".join(["ready", *degraded(), ""]))
        return PlainTextResponse(f"{status.state}: {status.reason}\n", status_code=503)

    async def show_status(_: Request) -> Response:
        measure()
        status.topic_partitions = topic_partitions()
        status.degraded = degraded()
        return Response(msgspec.json.encode(status), media_type="application/json")

    async def show_metrics(_: Request) -> Response:
        measure()
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
