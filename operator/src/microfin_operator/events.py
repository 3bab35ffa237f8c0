"""Records Events about a cluster, for `kubectl describe` and `kubectl get events`."""

import hashlib
from datetime import UTC, datetime

from microfin_operator.custom_resource import Cluster
from microfin_operator.kinds import EVENT, MICROFIN_CLUSTER
from microfin_operator.kubernetes_api import KubernetesApi
from microfin_operator.names import FIELD_MANAGER
from microfin_operator.plan import Note

_LONGEST_MESSAGE = 1024


async def record(api: KubernetesApi, cluster: Cluster, note: Note, now: datetime) -> None:
    """Record an Event, or add one to the count of an equal one. Raises `ApiFailure`."""
    message = note.message[:_LONGEST_MESSAGE]
    digest = hashlib.blake2b(
        f"{cluster.uid}/{note.reason}/{message}".encode(), digest_size=8
    ).hexdigest()
    name = f"{cluster.name}.{digest}"
    time = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    event = {
        "apiVersion": EVENT.api_version,
        "kind": EVENT.name,
        "metadata": {"name": name, "namespace": cluster.namespace},
        "involvedObject": {
            "apiVersion": MICROFIN_CLUSTER.api_version,
            "kind": MICROFIN_CLUSTER.name,
            "namespace": cluster.namespace,
            "name": cluster.name,
            "uid": cluster.uid,
        },
        "type": note.type,
        "reason": note.reason,
        "message": message,
        "count": 1,
        "firstTimestamp": time,
        "lastTimestamp": time,
        "source": {"component": FIELD_MANAGER},
        "reportingComponent": FIELD_MANAGER,
        "reportingInstance": FIELD_MANAGER,
    }
    if await api.create(EVENT, event):
        return
    earlier = await api.get(EVENT, cluster.namespace, name)
    count = int((earlier or {}).get("count") or 0) + 1
    changes = {"count": count, "lastTimestamp": time}
    await api.merge(EVENT, cluster.namespace, name, changes)
