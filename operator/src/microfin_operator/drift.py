"""Compares objects in the cluster with the objects that the operator wants."""

import hashlib
from typing import Any

import msgspec

from microfin_operator.custom_resource import Cluster
from microfin_operator.kinds import Kind, KubernetesObject
from microfin_operator.names import CLUSTER_LABEL, DESIRED_HASH
from microfin_operator.plan import Apply


def with_hash(item: KubernetesObject) -> KubernetesObject:
    """Return `item` with an annotation that holds the hash of its content.

    A comparison does not notice a field that `item` no longer has; the hash differs, so the next
    apply removes that field.
    """
    digest = hashlib.blake2b(
        msgspec.json.encode(item, order="deterministic"), digest_size=12
    ).hexdigest()
    metadata = item["metadata"]
    annotations = {**metadata.get("annotations", {}), DESIRED_HASH: digest}
    return {**item, "metadata": {**metadata, "annotations": annotations}}


def applied_hash(live: KubernetesObject | None) -> str:
    """Return the hash of the last apply, or "" if there was none."""
    return str(((live or {}).get("metadata", {}).get("annotations") or {}).get(DESIRED_HASH, ""))


def apply_if_drifted(
    kind: Kind, live: KubernetesObject | None, item: KubernetesObject
) -> list[Apply]:
    """Return the apply that changes `live` into `item`, or nothing if they already agree."""
    return [] if live is not None and covers(live, item) else [Apply(kind, item)]


def covers(live: Any, wanted: Any) -> bool:
    """Whether `live` has all fields of `wanted`; it may have more (defaults).

    If the API server writes a value differently (`1000m` as `1`), this returns False, and the
    operator sends an apply that changes nothing.
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
    """Return why the operator may not change an object that has one of its names, or "".

    An orphan of the cluster (`kubectl delete --cascade=orphan`) has its label and is adopted.
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
    return f"{what} was made by someone else: delete it, or give this MicrofinCluster another name"
