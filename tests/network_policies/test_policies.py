"""What NetworkPolicies permit, as the API's reference says."""

from typing import Any

import pytest

from network_policies.policies import (
    Cluster,
    Node,
    Permission,
    Pod,
    Ports,
    isolations,
    read_pods,
)
from network_policies.selectors import selects

NODE = Node("192.0.2.1", {53: 1053})
API = Pod("bank", "api", "10.0.0.1", {"app": "api"}, {("tcp", "http"): 8080})
WORKER = Pod("bank", "worker", "10.0.0.2", {"app": "worker"}, {("tcp", "http"): 8081})
OPERATOR = Pod("system", "operator", "10.0.0.3", {"app": "operator"})
STRANGER = Pod("other", "stranger", "10.0.0.4", {"app": "operator"})
NAMESPACES = {name: {"kubernetes.io/metadata.name": name} for name in ("bank", "system", "other")}


def policy(spec: dict[str, Any], namespace: str = "bank") -> dict[str, Any]:
    return {"metadata": {"name": "it", "namespace": namespace}, "spec": spec}


def judged(*policies: dict[str, Any], node: Node = NODE) -> dict[str, Any]:
    """Return what each isolated pod may do, by the pod's name."""
    pods = [API, WORKER, OPERATOR, STRANGER]
    cluster = Cluster(node, NAMESPACES, pods, policies)
    return {it.pod.name: (it.ingress, it.egress) for it in isolations(cluster)}


def ingress(*rules: dict[str, Any]) -> Any:
    """Return what may come in to the API's pod under these rules."""
    spec = {"podSelector": {"matchLabels": {"app": "api"}}, "ingress": list(rules)}
    return judged(policy(spec))["api"][0]


def egress(*rules: dict[str, Any], node: Node = NODE) -> Any:
    """Return what the API's pod may reach under these rules."""
    selector = {"matchLabels": {"app": "api"}}
    spec = {"podSelector": selector, "policyTypes": ["Egress"], "egress": list(rules)}
    return judged(policy(spec), node=node)["api"][1]


def test_without_a_policy_nobody_is_isolated() -> None:
    assert judged() == {}


def test_an_empty_selector_isolates_all_pods_of_the_namespace() -> None:
    assert judged(policy({"podSelector": {}})) == {"api": ((), None), "worker": ((), None)}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, ((), None)),
        ({"egress": [{}]}, ((), (Permission(),))),
        ({"egress": []}, ((), None)),
        ({"policyTypes": ["Egress"]}, (None, ())),
        ({"policyTypes": ["Ingress", "Egress"]}, ((), ())),
        ({"policyTypes": ["Egress"], "ingress": [{}]}, (None, ())),
    ],
)
def test_directions(spec: dict[str, Any], expected: Any) -> None:
    found = judged(policy({"podSelector": {"matchLabels": {"app": "api"}}, **spec}))
    assert found == {"api": expected}


def test_permissions_of_several_policies_add_up() -> None:
    one = {"podSelector": {}, "ingress": [{"ports": [{"port": 1}]}]}
    two = {"podSelector": {}, "ingress": [{"ports": [{"port": 2}]}]}
    found = judged(policy(one), policy(two))["api"][0]
    assert [it.ports[0].first for it in found] == [1, 2]


def test_a_pod_selector_means_pods_of_the_same_namespace() -> None:
    assert ingress({"from": [{"podSelector": {}}]}) == (Permission(("10.0.0.1", "10.0.0.2")),)
    chosen = {"podSelector": {"matchLabels": {"app": "operator"}}}
    assert ingress({"from": [chosen]}) == ()


def test_a_namespace_selector_means_all_pods_there() -> None:
    system = {"matchLabels": {"kubernetes.io/metadata.name": "system"}}
    assert ingress({"from": [{"namespaceSelector": system}]}) == (Permission(("10.0.0.3",)),)


def test_both_selectors_in_one_peer_must_hold() -> None:
    system = {"matchLabels": {"kubernetes.io/metadata.name": "system"}}
    operator = {"matchLabels": {"app": "operator"}}
    both = {"namespaceSelector": system, "podSelector": operator}
    assert ingress({"from": [both]}) == (Permission(("10.0.0.3",)),)
    either = [{"namespaceSelector": system}, {"podSelector": {"matchLabels": {"app": "worker"}}}]
    assert ingress({"from": either}) == (Permission(("10.0.0.2", "10.0.0.3")),)


def test_any_namespace() -> None:
    """A label opens the door from every namespace."""
    peer = {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "operator"}}}
    assert ingress({"from": [peer]}) == (Permission(("10.0.0.3", "10.0.0.4")),)


def test_a_block_with_exceptions() -> None:
    block = {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}
    assert egress({"to": [{"ipBlock": block}]}) == (Permission(("10.0.0.0/8",), ("10.1.0.0/16",)),)


def test_ports() -> None:
    ports = [{"port": 5432}, {"port": 53, "protocol": "UDP"}, {"port": 30, "endPort": 40}]
    assert ingress({"ports": ports}) == (
        Permission(ports=(Ports("tcp", 5432, 5432), Ports("udp", 53, 53), Ports("tcp", 30, 40))),
    )


def test_a_protocol_without_a_port_means_all_its_ports() -> None:
    (permission,) = ingress({"ports": [{"protocol": "UDP"}]})
    assert permission.ports == (Ports("udp", 0, 65535),)


def test_a_named_port_is_the_own_pods_on_the_way_in() -> None:
    (permission,) = ingress({"ports": [{"port": "http"}]})
    assert permission == Permission(ports=(Ports("tcp", 8080, 8080),))


def test_a_named_port_is_each_destinations_on_the_way_out() -> None:
    assert egress({"to": [{"podSelector": {}}], "ports": [{"port": "http"}]}) == (
        Permission(("10.0.0.1",), ports=(Ports("tcp", 8080, 8080),)),
        Permission(("10.0.0.2",), ports=(Ports("tcp", 8081, 8081),)),
    )
    assert len(egress({"ports": [{"port": "http"}]})) == 2


def test_a_name_that_no_port_has_permits_nothing() -> None:
    """It must not become a rule without ports, which permits everything."""
    assert ingress({"ports": [{"port": "https"}]}) == ()
    assert ingress({"ports": [{"port": "http", "protocol": "UDP"}]}) == ()
    assert egress({"to": [{"podSelector": {}}], "ports": [{"port": "https"}]}) == ()


def test_a_peer_that_no_pod_is_permits_nothing() -> None:
    """It must not become a rule without peers, which permits everybody."""
    nobody = {"podSelector": {"matchLabels": {"app": "nobody"}}}
    assert ingress({"from": [nobody], "ports": [{"port": 5432}]}) == ()


def test_a_port_that_the_node_answers_elsewhere() -> None:
    """Names are asked for at 53, and this node's DNS listens on 1053."""
    dns = {"ports": [{"port": 53, "protocol": "UDP"}]}
    asked = Permission(ports=(Ports("udp", 53, 53),))
    answered = Permission(("192.0.2.1",), ports=(Ports("udp", 1053, 1053),))
    assert egress(dns) == (asked, answered)
    assert egress(dns, node=Node("192.0.2.1")) == (asked,)


@pytest.mark.parametrize(
    ("block", "reached"),
    [
        ({"cidr": "192.0.2.0/24"}, True),
        ({"cidr": "192.0.2.0/24", "except": ["192.0.2.0/28"]}, False),
        ({"cidr": "10.0.0.0/8"}, False),
    ],
)
def test_the_node_only_where_it_is_a_peer(block: dict[str, Any], reached: bool) -> None:
    found = egress({"to": [{"ipBlock": block}], "ports": [{"port": 53}]})
    answered = Permission(("192.0.2.1",), ports=(Ports("tcp", 1053, 1053),))
    assert (answered in found) is reached


@pytest.mark.parametrize(
    ("expression", "api", "nothing"),
    [
        ({"key": "app", "operator": "In", "values": ["api", "x"]}, True, False),
        ({"key": "app", "operator": "NotIn", "values": ["api"]}, False, True),
        ({"key": "app", "operator": "NotIn", "values": ["x"]}, True, True),
        ({"key": "app", "operator": "Exists"}, True, False),
        ({"key": "app", "operator": "DoesNotExist"}, False, True),
    ],
)
def test_expressions(expression: dict[str, Any], api: bool, nothing: bool) -> None:
    selector = {"matchExpressions": [expression]}
    assert (selects(selector, {"app": "api"}), selects(selector, {})) == (api, nothing)


def test_an_unknown_operator_is_an_error() -> None:
    with pytest.raises(ValueError, match="Gt is no operator"):
        selects({"matchExpressions": [{"key": "app", "operator": "Gt"}]}, {})


def pod_item(status: dict[str, Any], **spec: Any) -> dict[str, Any]:
    port = {"name": "http", "containerPort": 8080}
    return {
        "metadata": {"namespace": "bank", "name": "api", "labels": {"app": "api"}},
        "spec": {"containers": [{"ports": [port, {"containerPort": 1}]}, {}], **spec},
        "status": status,
    }


def test_pods_are_read() -> None:
    assert read_pods([pod_item({"podIP": "10.0.0.1", "phase": "Running"})]) == [API]


@pytest.mark.parametrize(
    "item",
    [
        pod_item({"phase": "Pending"}),
        pod_item({"podIP": "10.0.0.1", "phase": "Succeeded"}),
        pod_item({"podIP": "10.0.0.1", "phase": "Failed"}),
        pod_item({"podIP": "192.0.2.1", "phase": "Running"}, hostNetwork=True),
    ],
)
def test_pods_without_an_address_of_their_own_are_left_out(item: dict[str, Any]) -> None:
    """The address of one that has ended may be another's."""
    assert read_pods([item]) == []
