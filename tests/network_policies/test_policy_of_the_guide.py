"""The policy that the guide gives for Clusters that copy from each other."""

import re
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest
import yaml

from network_policies.policies import Cluster, Node, Permission, Pod, isolations
from source.markdown_pages import REPOSITORY

CNPG = {"app.kubernetes.io/name": "cloudnative-pg"}
SHARD = Pod("microfin", "shard", "10.0.0.1", {"cnpg.io/cluster": "microfin-postgres-0"})
COPY = Pod("microfin", "copy", "10.0.0.2", {"cnpg.io/cluster": "copy-of-shard-0"})
OPERATOR = Pod("cnpg-system", "operator", "10.0.0.3", CNPG)
STRANGER = Pod("microfin", "stranger", "10.0.0.4")
DISGUISED = Pod("elsewhere", "disguised", "10.0.0.5", CNPG)
API_SERVER = "192.0.2.1"


def guides_policy() -> Any:
    text = (REPOSITORY / "docs/guide/disaster-recovery.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    (policy,) = (it for block in blocks if (it := yaml.safe_load(block))["kind"] == "NetworkPolicy")
    return policy


def permits(
    permissions: tuple[Permission, ...] | None, peer: str, protocol: str, port: int
) -> bool:
    return permissions is None or any(
        (
            it.networks is None
            or any(IPv4Address(peer) in IPv4Network(network) for network in it.networks)
        )
        and any(
            ports.protocol == protocol and ports.first <= port <= ports.last
            for ports in it.ports or ()
        )
        for it in permissions
    )


def copys() -> Any:
    """Return what the copy's pod may do: no other policy is for it."""
    namespaces = {it: {"kubernetes.io/metadata.name": it} for it in ("microfin", "cnpg-system")}
    pods = [SHARD, COPY, OPERATOR, STRANGER, DISGUISED]
    cluster = Cluster(Node(API_SERVER), namespaces, pods, [guides_policy()])
    return next(it for it in isolations(cluster) if it.pod is COPY)


@pytest.mark.parametrize("port", [5432, 8000])
def test_clusters_reach_each_other_and_their_operator_reaches_them(port: int) -> None:
    for peer in (SHARD, COPY, OPERATOR):
        assert permits(copys().ingress, peer.address, "tcp", port), peer
    assert permits(copys().egress, SHARD.address, "tcp", port)


@pytest.mark.parametrize(
    ("protocol", "port"), [("udp", 53), ("tcp", 53), ("tcp", 443), ("tcp", 6443)]
)
def test_a_copy_asks_for_names_and_the_api_server(protocol: str, port: int) -> None:
    """Without them its instance does not start."""
    assert permits(copys().egress, API_SERVER, protocol, port)


@pytest.mark.parametrize("guest", [STRANGER, DISGUISED])
def test_nobody_else_reaches_a_copy(guest: Pod) -> None:
    assert not permits(copys().ingress, guest.address, "tcp", 5432)
    assert not permits(copys().egress, guest.address, "tcp", 5432)
