"""The operator's HTTP: `/healthz`, `/readyz`, `/metrics`."""

from typing import Final

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from microfin_operator.api_silence import ApiSilence
from microfin_operator.cluster_authority import ClusterAuthority
from microfin_operator.cluster_loop import ClusterLoops

STUCK_AFTER: Final = 300.0
"""Seconds without a sign of life from a loop after which the operator should be restarted. A pass
that cannot reach the API server ends, and counts as a sign of life: a restart would not help."""


class WebServer:
    """Serves until it is stopped. The operator is ready while the API server answers.

    /healthz asks for a restart where only a restart helps: a loop is stuck, or the API server's
    authority was replaced, which the clients would not believe.
    """

    def __init__(
        self,
        loops: ClusterLoops,
        silence: ApiSilence,
        authority: ClusterAuthority,
        host: str,
        port: int,
    ) -> None:
        self._loops = loops
        self._silence = silence
        self._authority = authority
        self._host = host
        self._port = port
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen."""
        application = web.Application()
        application.add_routes(
            [
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._metrics),
            ]
        )
        self._runner = web.AppRunner(application, handle_signals=False, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self._port).start()

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    @property
    def port(self) -> int:
        """The port that the server listens on, also if the settings ask for any (0)."""
        if self._runner is None:
            raise RuntimeError("start comes before port")
        return int(self._runner.addresses[0][1])

    async def _healthz(self, _: web.Request) -> web.Response:
        age = self._loops.oldest_beat()
        if age is not None and age > STUCK_AFTER:
            return web.Response(status=503, text=f"a cluster was not checked for {age:.0f} s\n")
        if self._authority.is_replaced():
            text = "the API server's authority was replaced, and only a restart reads it again\n"
            return web.Response(status=503, text=text)
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        missing = self._silence.said
        if not missing:
            return web.Response(text="ready\n")
        return web.Response(status=503, text=f"{missing}\n")

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})
