"""What the NetworkPolicies of a cluster permit, pod by pod. IPv4 only."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from typing import Any, Final, Literal

from network_policies.selectors import Labels, selects

Item = Mapping[str, Any]
"""An object of the API, or a part of one, in JSON's types."""

Direction = Literal["ingress", "egress"]

_ENDED: Final = ("Succeeded", "Failed")
_PEERS: Final = {"ingress": "from", "egress": "to"}


@dataclass(frozen=True)
class Ports:
    """Ports of one protocol, from `first` to `last`."""

    protocol: str
    first: int
    last: int


@dataclass(frozen=True)
class Pod:
    """A pod that has an address of its own. `named` are its named ports, by protocol and name."""

    namespace: str
    name: str
    address: str
    labels: Labels = field(default_factory=dict)
    named: Mapping[tuple[str, str], int] = field(default_factory=dict)


@dataclass(frozen=True)
class Permission:
    """Peers, and the ports at which they may be reached or may come in.

    `networks` is None for any peer, `ports` is None for any port of any protocol.
    """

    networks: tuple[str, ...] | None = None
    excluded: tuple[str, ...] = ()
    ports: tuple[Ports, ...] | None = None


@dataclass(frozen=True)
class Isolation:
    """What one pod may do. A direction is None if no policy isolates the pod in it."""

    pod: Pod
    ingress: tuple[Permission, ...] | None = None
    egress: tuple[Permission, ...] | None = None


@dataclass(frozen=True)
class Node:
    """The node. `translated` are ports that Services send to other ports of the node itself."""

    address: str
    translated: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Cluster:
    """What the API server says; `namespaces` are the labels of each."""

    node: Node
    namespaces: Mapping[str, Labels]
    pods: Sequence[Pod]
    policies: Sequence[Item]


def read_pods(items: Iterable[Item]) -> list[Pod]:
    """Return the pods that have an address of their own and have not ended."""
    return [
        Pod(
            item["metadata"]["namespace"],
            item["metadata"]["name"],
            item["status"]["podIP"],
            item["metadata"].get("labels") or {},
            dict(_named_ports(item)),
        )
        for item in items
        if item["status"].get("podIP")
        and item["status"].get("phase") not in _ENDED
        and not item["spec"].get("hostNetwork")
    ]


def _named_ports(item: Item) -> Iterator[tuple[tuple[str, str], int]]:
    spec = item["spec"]
    for container in (*(spec.get("initContainers") or ()), *spec["containers"]):
        for port in container.get("ports") or ():
            if "name" in port:
                protocol = port.get("protocol", "TCP").lower()
                yield (protocol, port["name"]), port["containerPort"]


def isolations(cluster: Cluster) -> list[Isolation]:
    """Return the pods that some policy isolates, with what all policies together permit."""
    found = (_isolation(cluster, pod) for pod in cluster.pods)
    return [it for it in found if it.ingress is not None or it.egress is not None]


def _isolation(cluster: Cluster, pod: Pod) -> Isolation:
    ingress: list[Permission] | None = None
    egress: list[Permission] | None = None
    for policy in cluster.policies:
        if policy["metadata"]["namespace"] != pod.namespace:
            continue
        spec = policy["spec"]
        if not selects(spec.get("podSelector") or {}, pod.labels):
            continue
        if isolates(spec, "ingress"):
            ingress = [*(ingress or ()), *_permissions(cluster, policy, pod, "ingress")]
        if isolates(spec, "egress"):
            permitted = list(_permissions(cluster, policy, pod, "egress"))
            egress = [*(egress or ()), *permitted, *_at_the_node(cluster.node, permitted)]
    return Isolation(
        pod,
        None if ingress is None else tuple(ingress),
        None if egress is None else tuple(egress),
    )


def isolates(spec: Item, direction: Direction) -> bool:
    """Whether a policy isolates its pods in a direction: without `policyTypes` from ingress, and
    from egress if it has rules for it."""
    types = spec.get("policyTypes") or ["Ingress", *(["Egress"] if spec.get("egress") else [])]
    return direction.capitalize() in types


def _permissions(
    cluster: Cluster, policy: Item, own: Pod, direction: Direction
) -> Iterator[Permission]:
    for rule in policy["spec"].get(direction) or ():
        peers = rule.get(_PEERS[direction]) or ()
        ports = rule.get("ports") or ()
        numbers = tuple(_numbered(it) for it in ports if not isinstance(it.get("port"), str))
        names = [it for it in ports if isinstance(it.get("port"), str)]
        if not ports:
            yield from _for_peers(cluster, policy, peers, None)
        elif direction == "ingress":
            yield from _for_peers(cluster, policy, peers, (*numbers, *_resolved(own, names)))
        else:
            yield from _for_peers(cluster, policy, peers, numbers)
            # A name is each destination's own.
            for pod in _chosen(cluster, policy, peers) if peers else cluster.pods:
                if opened := tuple(_resolved(pod, names)):
                    yield Permission((pod.address,), ports=opened)


def _for_peers(
    cluster: Cluster, policy: Item, peers: Sequence[Item], ports: tuple[Ports, ...] | None
) -> Iterator[Permission]:
    if ports == ():
        return
    if not peers:
        yield Permission(ports=ports)
    if pods := _chosen(cluster, policy, peers):
        yield Permission(tuple(sorted(pod.address for pod in pods)), ports=ports)
    for peer in peers:
        if block := peer.get("ipBlock"):
            yield Permission((block["cidr"],), tuple(block.get("except") or ()), ports)


def _chosen(cluster: Cluster, policy: Item, peers: Sequence[Item]) -> list[Pod]:
    return [
        pod for pod in cluster.pods if any(_is_peer(cluster, policy, peer, pod) for peer in peers)
    ]


def _is_peer(cluster: Cluster, policy: Item, peer: Item, pod: Pod) -> bool:
    if "ipBlock" in peer:
        return False
    if "namespaceSelector" in peer:
        if not selects(peer["namespaceSelector"], cluster.namespaces.get(pod.namespace, {})):
            return False
    elif pod.namespace != policy["metadata"]["namespace"]:
        return False
    return selects(peer.get("podSelector") or {}, pod.labels)


def _numbered(port: Item) -> Ports:
    first = port.get("port")
    protocol = port.get("protocol", "TCP").lower()
    if first is None:
        return Ports(protocol, 0, 65535)
    return Ports(protocol, first, port.get("endPort", first))


def _resolved(pod: Pod, names: Iterable[Item]) -> Iterator[Ports]:
    for port in names:
        protocol = port.get("protocol", "TCP").lower()
        number = pod.named.get((protocol, port["port"]))
        if number is not None:
            yield Ports(protocol, number, number)


def _at_the_node(node: Node, permitted: Iterable[Permission]) -> Iterator[Permission]:
    """Yield what a pod may reach at the node itself by a port that a Service translates."""
    for permission in permitted:
        if permission.ports is None or not _includes(permission, node.address):
            continue
        ports = tuple(
            Ports(it.protocol, to, to)
            for it in permission.ports
            for port, to in node.translated.items()
            if it.first <= port <= it.last
        )
        if ports:
            yield Permission((node.address,), ports=ports)


def _includes(permission: Permission, address: str) -> bool:
    one = IPv4Network(address)
    if any(one.subnet_of(IPv4Network(it)) for it in permission.excluded):
        return False
    networks = permission.networks
    return networks is None or any(one.subnet_of(IPv4Network(it)) for it in networks)
