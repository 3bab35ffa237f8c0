"""The rules of nftables for what the policies permit."""

from network_policies.policies import Isolation, Permission, Pod, Ports
from network_policies.ruleset import chains, ruleset

DNS = (Ports("tcp", 53, 53), Ports("udp", 53, 53))
POD = Pod("bank", "api", "10.0.0.1")


def rules(isolation: Isolation, chain: str) -> list[str]:
    """Return the rules of a chain, without those that end each chain and the pod itself."""
    start = f"add rule inet microfin-e2e-policies {chain} "
    lines = ruleset([isolation], ()).splitlines()
    own, *found, remember, drop = [it.removeprefix(start) for it in lines if it.startswith(start)]
    side = "daddr" if chain.startswith("egress") else "saddr"
    assert own == f"ip {side} 10.0.0.1 return"
    assert remember.startswith("meta l4proto { tcp, udp } add @refused")
    assert drop == "drop"
    return found


def test_nobody_is_isolated() -> None:
    """A map without elements is an error of nft's."""
    assert "vmap" not in ruleset([], ())


def test_packets_are_judged_in_the_direction_of_their_connection() -> None:
    for hook in ("forward", "input"):
        line = f"{hook} meta nfproto ipv4 ct direction original jump judge"
        assert line in ruleset([], ())


def test_an_isolated_direction_has_a_chain() -> None:
    lines = ruleset([Isolation(POD, ingress=())], ())
    assert "judge ip daddr vmap { 10.0.0.1 : jump ingress-10.0.0.1 }" in lines
    assert "egress-" not in lines
    assert chains([Isolation(POD, (), ())]) == {"ingress-10.0.0.1", "egress-10.0.0.1"}


def test_default_deny() -> None:
    assert rules(Isolation(POD, ingress=()), "ingress-10.0.0.1") == []


def test_peers_and_ports() -> None:
    """For both protocols, the peers are the same."""
    permission = Permission(("10.0.0.2", "10.0.0.3"), ports=DNS)
    assert rules(Isolation(POD, egress=(permission,)), "egress-10.0.0.1") == [
        "ip daddr { 10.0.0.2, 10.0.0.3 } tcp dport { 53 } return",
        "ip daddr { 10.0.0.2, 10.0.0.3 } udp dport { 53 } return",
    ]


def test_everything_is_permitted() -> None:
    assert rules(Isolation(POD, ingress=(Permission(),)), "ingress-10.0.0.1") == ["return"]


def test_a_block_with_exceptions() -> None:
    permission = Permission(("10.0.0.0/8",), ("10.1.0.0/16", "10.2.0.0/16"))
    assert rules(Isolation(POD, ingress=(permission,)), "ingress-10.0.0.1") == [
        "ip saddr { 10.0.0.0/8 } ip saddr != { 10.1.0.0/16, 10.2.0.0/16 } return"
    ]


def test_ranges_that_overlap_are_joined() -> None:
    """In a set, they are an error of nft's."""
    ports = (Ports("tcp", 35, 50), Ports("tcp", 30, 40), Ports("tcp", 36, 36), Ports("tcp", 7, 7))
    assert rules(Isolation(POD, ingress=(Permission(ports=ports),)), "ingress-10.0.0.1") == [
        "tcp dport { 7, 30-50 } return"
    ]


def test_chains_of_pods_that_are_gone_are_deleted() -> None:
    lines = ruleset([Isolation(POD, ingress=())], ["ingress-10.0.0.1", "egress-10.0.0.9"])
    assert "delete chain inet microfin-e2e-policies egress-10.0.0.9\n" in lines
    assert "delete chain inet microfin-e2e-policies ingress-10.0.0.1" not in lines
