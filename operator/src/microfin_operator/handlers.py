"""The functions that kopf calls: kopf watches, and an event only says which cluster to check.

No handler makes kopf write to objects: `on.event` stores no progress and needs no finalizer, so
nothing hangs when the operator is removed before its clusters.
"""

import dataclasses
import ssl
from typing import Any, Final

import kopf
import structlog

from microfin_operator.api_silence import ApiSilence
from microfin_operator.cluster_authority import ClusterAuthority
from microfin_operator.cluster_loop import ClusterLoops, Pace
from microfin_operator.kinds import JOB, KAFKA_TOPIC, MICROFIN_CLUSTER, POD, STATEFUL_SET, Kind
from microfin_operator.kubernetes_api import KubernetesApi, connect
from microfin_operator.metrics import ClusterCollector, expose
from microfin_operator.names import CLUSTER_LABEL, FIELD_MANAGER, TOPIC_OWNER
from microfin_operator.settings import OperatorSettings
from microfin_operator.web import WebServer
from microfin_operator.worker_reports import WorkerReader

logger = structlog.get_logger(__name__)

_WATCH_SECONDS: Final = 600
"""How long one watch request lasts. `inactivity_timeout` ends a silent one earlier."""


class Runtime:
    """The objects that exist from the operator's start to its end."""

    def __init__(self, api: KubernetesApi, settings: OperatorSettings) -> None:
        self.api = api
        self.workers = WorkerReader(settings.worker_port)
        pace = Pace(settings.resync_seconds, settings.look_seconds, settings.lag_seconds)
        self.loops = ClusterLoops(api, self.workers, pace)
        self.silence = ApiSilence(api, self.loops.wake_all)
        host, port = settings.http_host, settings.http_port
        self.web = WebServer(self.loops, self.silence, ClusterAuthority(), host, port)
        self._hide = expose(ClusterCollector(self.loops.figures))

    async def start(self) -> None:
        """Answer probes, and begin to ask the API server."""
        await self.web.start()
        self.silence.start()

    async def stop(self) -> None:
        """End everything."""
        self.silence.stop()
        await self.loops.stop()
        await self.web.stop()
        await self.workers.close()
        await self.api.close()
        self._hide()


def selector(kind: Kind) -> tuple[str, str, str]:
    """Return a kind in the form that kopf's decorators expect."""
    group, _, version = kind.api_version.rpartition("/")
    return group, version, kind.plural


class Connection(kopf.ConnectionInfo):
    """The API server; its CA's certificate may have any form (see `kubernetes_api.connect`)."""

    def as_ssl_context(self) -> ssl.SSLContext:
        """Return kopf's own context without the check that Python 3.13 added."""
        context = super().as_ssl_context()
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        return context


@kopf.on.login()
def log_in(**arguments: Any) -> kopf.ConnectionInfo | None:
    """Log in for kopf's watches without loading a whole client."""
    found = kopf.login_with_service_account(**arguments) or kopf.login_with_kubeconfig(**arguments)
    if found is None:
        return None
    fields = {field.name: getattr(found, field.name) for field in dataclasses.fields(found)}
    return Connection(**fields)


@kopf.on.startup(errors=kopf.ErrorsMode.PERMANENT)
async def start(memo: kopf.Memo, settings: kopf.OperatorSettings, **_: Any) -> None:
    """Start the loops and the HTTP server before the first event comes."""
    configure_kopf(settings)
    ours = OperatorSettings()
    memo.runtime = Runtime(await connect(ours.request_timeout), ours)
    await memo.runtime.start()


def configure_kopf(settings: kopf.OperatorSettings) -> None:
    """Keep kopf's watches alive, and prevent kopf from writing to objects."""
    settings.watching.server_timeout = _WATCH_SECONDS
    settings.watching.client_timeout = _WATCH_SECONDS + 60
    settings.watching.connect_timeout = 15
    settings.posting.enabled = False
    settings.peering.standalone = True
    settings.persistence.finalizer = f"microfin.io/{FIELD_MANAGER}"
    for kind in (POD, JOB, STATEFUL_SET):
        settings.watching.label_selectors[selector(kind)] = CLUSTER_LABEL


@kopf.on.cleanup()
async def stop(memo: kopf.Memo, **_: Any) -> None:
    """End the loops and close all connections."""
    runtime: Runtime | None = memo.get("runtime")
    if runtime is not None:
        await runtime.stop()


@kopf.on.event(*selector(MICROFIN_CLUSTER))
async def on_cluster(memo: kopf.Memo, type: str | None, body: kopf.Body, **_: Any) -> None:  # noqa: A002 - kopf's name
    """Check a cluster that is new, changed or deleted."""
    namespace, name = body["metadata"]["namespace"], body["metadata"]["name"]
    if type == "DELETED":
        memo.runtime.loops.wake(namespace, name)
    else:
        memo.runtime.loops.start_or_wake(namespace, name, body["metadata"].get("generation", 1))


@kopf.on.event(*selector(STATEFUL_SET), labels={CLUSTER_LABEL: kopf.PRESENT})
@kopf.on.event(*selector(JOB), labels={CLUSTER_LABEL: kopf.PRESENT})
@kopf.on.event(*selector(POD), labels={CLUSTER_LABEL: kopf.PRESENT})
async def on_owned_object(memo: kopf.Memo, body: kopf.Body, **_: Any) -> None:
    """Check the cluster that an object belongs to."""
    metadata = body["metadata"]
    memo.runtime.loops.wake(metadata["namespace"], metadata["labels"][CLUSTER_LABEL])


@kopf.on.event(*selector(KAFKA_TOPIC), annotations={TOPIC_OWNER: kopf.PRESENT})
async def on_topic(memo: kopf.Memo, body: kopf.Body, **_: Any) -> None:
    """Check the cluster that a KafkaTopic belongs to, which may be in another namespace."""
    namespace, _slash, name = body["metadata"]["annotations"][TOPIC_OWNER].partition("/")
    memo.runtime.loops.wake(namespace, name)
