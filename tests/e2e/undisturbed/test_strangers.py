"""Every open port of the bank, tried from every kind of pod, against the tables in the READMEs.

The open ports are those that the pods really listen on.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final, NamedTuple

import pytest
import pytest_asyncio

from e2e.allowed_flows import AllowedFlows, Flow
from e2e.enforcement import needs_enforcement
from e2e.figures import figure
from e2e.kubernetes_bank import API_IMAGE, Bank
from e2e.kubernetes_cluster import apply, get, kubectl, own_namespace

pytestmark = [pytest.mark.timeout(300), needs_enforcement]

_SOCKET: Final = re.compile(r"^ *\d+: ([0-9A-F]+):([0-9A-F]{4}) \S+ ([0-9A-F]{2}) ", re.MULTILINE)
_LISTENING: Final = "0A"
# 127.0.0.1, also as an IPv6 address, and ::1, in words of the machine's order.
_LOOPBACKS: Final = ("0100007F", "00000000000000000000000001000000")
_NAMES: Final = {"microfin-redis": "redis", "microfin-operator": "operator"}
_STRANGERS_PORT: Final = 5432  # a port at which others may leave
_SERVE: Final = (
    "import socketserver, sys; s = socketserver; "
    "s.TCPServer(('', int(sys.argv[1])), s.BaseRequestHandler).serve_forever()"
)
# All at once; a packet that a policy drops is never answered.
_KNOCK: Final = """
for door in "$@"; do
    (timeout 3 bash -c "exec 3<>/dev/tcp/${door%:*}/${door#*:}" 2>/dev/null && echo "$door") &
done
wait
"""


_DISGUISES: Final[dict[str, dict[str, str]]] = {
    "stranger": {},
    "as-cloudnativepg": {"app.kubernetes.io/name": "cloudnative-pg"},
    "as-strimzi": {"strimzi.io/kind": "cluster-operator"},
    "as-the-operator": {"app.kubernetes.io/name": "microfin-operator"},
    "as-a-worker": {
        "app.kubernetes.io/name": "microfin",
        "app.kubernetes.io/instance": "microfin",
        "app.kubernetes.io/component": "worker",
    },
}
"""The strangers in another namespace, by the labels with which they pretend to be somebody."""


class Door(NamedTuple):
    """A port that a pod listens on."""

    component: str
    namespace: str
    pod: str
    address: str
    port: int


class Seat(NamedTuple):
    """A pod from which doors are tried."""

    component: str
    namespace: str
    pod: str


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def elsewhere(bank: Bank) -> AsyncIterator[str]:
    """A namespace with strangers; another stranger, without a disguise, is in the bank's."""
    async with own_namespace() as namespace:
        pods = [_stranger(namespace, name, labels) for name, labels in _DISGUISES.items()]
        apply(*pods, _stranger(bank.namespace, "stranger", {}))
        ready = ("wait", "--for=condition=Ready", "pod", "-l", "stranger", "--timeout=60s")
        for place in (namespace, bank.namespace):
            kubectl("-n", place, *ready)
        try:
            yield namespace
        finally:
            bank.kubectl("delete", "pod", "stranger", "--grace-period=1")


async def test_open_ports_are_reached_from_where_the_tables_say_and_nowhere_else(
    bank: Bank, elsewhere: str
) -> None:
    doors = [*_doors(bank, elsewhere), *_doors_of_the_node()]
    assert {"api", "worker", "pooler", "postgres", "redis", "kafka", "operator", "stranger"} <= {
        door.component for door in doors
    }
    seats = _seats(bank, elsewhere)
    opened = await asyncio.gather(*(_knock(seat, doors) for seat in seats))
    allowed = _allowed(bank)
    wrong = [
        f"{seat.component} {seat.pod} {'reaches' if door in reached else 'does not reach'} {door}"
        for seat, reached in zip(seats, opened, strict=True)
        for door in doors
        if (seat.namespace, seat.pod) != (door.namespace, door.pod)
        and allowed.permit(Flow(seat.component, door.component, door.port)) != (door in reached)
    ]
    assert not wrong, "\n".join(wrong)
    figure(
        f"{len(seats)} kinds of pods tried {len(doors)} open ports: "
        f"{sum(map(len, opened))} of {len(seats) * len(doors)} were reached, as the tables say"
    )


def _allowed(bank: Bank) -> AllowedFlows:
    if bank.platform.strimzi:
        return AllowedFlows({}, frozenset())
    return AllowedFlows({}, frozenset({"kafka"}))


def _components(bank: Bank, elsewhere: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield all pods that have a part in this, each with what the tables call it."""
    places = {bank.namespace, bank.wanted.operator_namespace, elsewhere}
    if bank.platform.kafka is not None:
        places.add(bank.platform.kafka.namespace)
    for place in sorted(places):
        for pod in get("pods", place)["items"]:
            if pod["status"]["phase"] == "Running":
                yield _component(pod["metadata"]["labels"]), pod


def _component(labels: dict[str, str]) -> str:
    if "stranger" in labels:
        return "stranger"
    if "cnpg.io/poolerName" in labels:
        return "pooler"
    if "cnpg.io/cluster" in labels:
        return "postgres"
    if "strimzi.io/broker-role" in labels or labels.get("app") == "kafka":
        return "kafka"
    name = labels["app.kubernetes.io/name"]
    return labels["app.kubernetes.io/component"] if name == "microfin" else _NAMES.get(name, name)


def _doors(bank: Bank, elsewhere: str) -> Iterator[Door]:
    for component, pod in _components(bank, elsewhere):
        name, place = pod["metadata"]["name"], pod["metadata"]["namespace"]
        tables = ("/proc/net/tcp", "/proc/net/tcp6")
        printed = kubectl("-n", place, "exec", name, "--", "cat", *tables)
        for port in sorted(set(_listening(printed))):
            yield Door(component, place, name, pod["status"]["podIP"], port)


def _listening(printed: str) -> Iterator[int]:
    """Yield the ports of /proc/net/tcp that are open to more than loopback."""
    for address, port, state in _SOCKET.findall(printed):
        if state == _LISTENING and not address.endswith(_LOOPBACKS):
            yield int(port, 16)


def _doors_of_the_node() -> Iterator[Door]:
    """The API server, DNS, and a kubelet."""
    server = get("service/kubernetes", "default")["spec"]["clusterIP"]
    names = get("service/kube-dns", "kube-system")["spec"]["clusterIP"]
    addresses = get("nodes", "default")["items"][0]["status"]["addresses"]
    kubelet = next(it["address"] for it in addresses if it["type"] == "InternalIP")
    yield Door("API server", "", "", server, 443)
    yield Door("DNS", "", "", names, 53)
    yield Door("kubelet", "", "", kubelet, 10250)


def _seats(bank: Bank, elsewhere: str) -> list[Seat]:
    """Return one pod of each kind, and all strangers."""
    found = {}
    for component, pod in _components(bank, elsewhere):
        metadata = pod["metadata"]
        place, name = metadata["namespace"], metadata["name"]
        kind = (place, name) if component == "stranger" else component
        found[kind] = Seat(component, place, name)
    return list(found.values())


async def _knock(seat: Seat, doors: list[Door]) -> set[Door]:
    """Return the doors that a pod reaches."""
    addresses = {f"{door.address}:{door.port}": door for door in doors}
    inside = ("-n", seat.namespace, "exec", seat.pod, "--", "bash", "-c", _KNOCK, "knock")
    printed = await asyncio.to_thread(kubectl, *inside, *addresses)
    return {addresses[line] for line in printed.split()}


def _stranger(namespace: str, name: str, labels: dict[str, str]) -> dict[str, Any]:
    container = {
        "name": "stranger",
        "image": API_IMAGE,
        "command": ["python", "-c", _SERVE, str(_STRANGERS_PORT)],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    security = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {"stranger": "", **labels},
        },
        "spec": {"securityContext": security, "containers": [container]},
    }
