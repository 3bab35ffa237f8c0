"""`python -m microfin_api`: one API process on one port, until SIGTERM or SIGINT."""

import signal
import sys
from types import FrameType

import uvicorn
from pydantic import ValidationError

from microfin.process.logs import configure_logs
from microfin.process.settings import ApiSettings
from microfin_api.app import create_app
from microfin_api.http.draining import DrainingServer
from microfin_api.http.listening import listening_sockets
from microfin_api.http.protocol import StrictHttpProtocol

_GRACE_SECONDS = 11  # a little longer than the longest wait for an outcome
_KEEP_ALIVE_SECONDS = 75  # longer than proxies keep idle connections, so that they close first


def _end(_signal: int, _frame: FrameType | None) -> None:
    sys.exit(0)


def main() -> None:
    """Serve until a signal comes; then finish the requests that wait, and stop."""
    # uvicorn stops gracefully and then raises the signal again. Such an end is no failure.
    signal.signal(signal.SIGTERM, _end)
    try:
        settings = ApiSettings()
        configure_logs(settings, process=f"api-{settings.api_port}")
        app = create_app(settings)
    except (ValidationError, ValueError) as error:
        sys.exit(f"microfin_api cannot start: {error}")
    config = uvicorn.Config(
        app,
        host=settings.api_host,
        port=settings.api_port,
        loop="uvloop",
        http=StrictHttpProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    server = DrainingServer(config, app.drain, settings.drain_seconds)
    server.run(listening_sockets(config))


if __name__ == "__main__":
    main()
