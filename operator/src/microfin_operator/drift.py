"""Whether an object in the cluster is as the operator wants it."""

import hashlib
from typing import Any

import msgspec

from microfin_operator.custom_resource import Cluster
from microfin_operator.kinds import Kind, KubernetesObject
from microfin_operator.names import CLUSTER_LABEL, DESIRED_HASH
from microfin_operator.plan import Apply


def with_hash(item: KubernetesObject) -> KubernetesObject:
    """Return `item` with the annotation that tells its content.

    A field that is no longer wanted is missing in `item`, which alone would not show; the hash
    differs, so that the next apply takes it away.
    """
    digest = hashlib.blake2b(
        msgspec.json.encode(item, order="deterministic"), digest_size=12
    ).hexdigest()
    metadata = item["metadata"]
    annotations = {**metadata.get("annotations", {}), DESIRED_HASH: digest}
    return {**item, "metadata": {**metadata, "annotations": annotations}}


def applied_hash(live: KubernetesObject | None) -> str:
    """Return the hash of what was applied last, or nothing."""
    return str(((live or {}).get("metadata", {}).get("annotations") or {}).get(DESIRED_HASH, ""))


def apply_if_drifted(
    kind: Kind, live: KubernetesObject | None, item: KubernetesObject
) -> list[Apply]:
    """Return the apply that makes `live` as `item` wants it, or none where it is so already."""
    return [] if live is not None and covers(live, item) else [Apply(kind, item)]


def covers(live: Any, wanted: Any) -> bool:
    """Whether everything in `wanted` stands in `live`, which may hold more (defaults).

    Where the API server writes a value in another way (`1000m` as `1`), this says no, and an apply
    is sent that changes nothing.
    """
    if isinstance(wanted, dict):
        return isinstance(live, dict) and all(
            name in live and covers(live[name], value) for name, value in wanted.items()
        )
    if isinstance(wanted, list):
        return (
            isinstance(live, list) and len(live) == len(wanted) and all(map(covers, live, wanted))
        )
    return bool(live == wanted)


def why_not_ours(live: KubernetesObject | None, cluster: Cluster) -> str:
    """Return why an object that carries our name is not ours to change, or nothing.

    An orphan of ours (`kubectl delete --cascade=orphan`) carries our label and is taken up again.
    """
    if live is None:
        return ""
    what = f"{live.get('kind', 'object')} {live['metadata']['name']}"
    controllers = [
        owner for owner in live["metadata"].get("ownerReferences") or [] if owner.get("controller")
    ]
    if any(owner["uid"] == cluster.uid for owner in controllers):
        return ""
    if controllers:
        owner = f"{controllers[0]['kind']} {controllers[0]['name']} ({controllers[0]['uid']})"
        return f"{what} belongs to {owner}: waiting until it is gone; delete it if it stays"
    if (live["metadata"].get("labels") or {}).get(CLUSTER_LABEL) == cluster.name:
        return ""
    return f"{what} was made by somebody else: delete it, or give this MicrofinCluster another name"
