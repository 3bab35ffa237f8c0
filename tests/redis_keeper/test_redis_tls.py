"""A Redis Cluster whose nodes and clients speak TLS, made by the chart's own scripts."""

import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trustme

from redis_keeper.kept_cluster import DOMAIN, KeptCluster, running_cluster
from support.waiting import until_blocking

ADDRESSES = ["127.77.40.1", "127.77.40.2", "127.77.40.3"]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def cluster(
    real_components: None, tmp_path_factory: pytest.TempPathFactory, authority: trustme.CA
) -> Iterator[KeptCluster]:
    folder = tmp_path_factory.mktemp("redis") / "cluster"
    with running_cluster(folder, ADDRESSES, authority) as made:
        yield made


@contextmanager
def connected(
    pod: int, trusted: trustme.CA, name: str | None = None, port: int = 6379
) -> Iterator[ssl.SSLSocket]:
    """Connect to a node as a client does that knows its name and trusts one authority."""
    context = ssl.create_default_context()
    trusted.configure_trust(context)
    host = name or f"microfin-redis-{pod}.{DOMAIN}"
    with (
        socket.create_connection((ADDRESSES[pod], port), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname=host) as secure,
    ):
        yield secure


def serial(pod: int, trusted: trustme.CA) -> str:
    with connected(pod, trusted) as client:
        found = client.getpeercert()
    assert found is not None
    return str(found["serialNumber"])


def test_clients_reach_each_node_by_its_name(cluster: KeptCluster, authority: trustme.CA) -> None:
    for pod in range(3):
        with connected(pod, authority) as client:
            client.sendall(b"PING\r\n")
            assert client.recv(100).startswith(b"-NOAUTH")
    with connected(0, authority, f"microfin-redis.{DOMAIN.partition('.')[2]}"):
        pass


def test_the_nodes_send_clients_to_names(cluster: KeptCluster) -> None:
    """A certificate has no addresses of pods."""
    slots = cluster.ask(0, "CLUSTER", "SLOTS")
    for pod in range(3):
        assert f"microfin-redis-{pod}.{DOMAIN}" in slots


def test_another_name_another_authority_and_plaintext_are_refused(
    cluster: KeptCluster, authority: trustme.CA
) -> None:
    with pytest.raises(ssl.SSLCertVerificationError), connected(0, authority, "redis.example"):
        pass
    with pytest.raises(ssl.SSLCertVerificationError), connected(0, trustme.CA()):
        pass
    command = ["redis-cli", "-h", ADDRESSES[0], "PING"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    assert "PONG" not in done.stdout
    assert "NOAUTH" not in done.stdout


def test_the_bus_speaks_only_with_nodes(cluster: KeptCluster, authority: trustme.CA) -> None:
    """It has no password: a certificate of the authority is what a node shows."""
    with connected(0, authority, port=16379) as stranger, pytest.raises(ssl.SSLError):
        stranger.recv(1)


def test_a_renewed_certificate_is_served_and_nobody_is_cut_off(
    cluster: KeptCluster, authority: trustme.CA
) -> None:
    before = [serial(pod, authority) for pod in range(3)]
    with connected(1, authority) as client:
        cluster.certify(authority)
        for pod in range(3):
            until_blocking("the new certificate", lambda: serial(pod, authority) != before[pod])  # noqa: B023 - called at once
        client.sendall(b"PING\r\n")
        assert client.recv(100).startswith(b"-NOAUTH")
    until_blocking("the cluster", cluster.is_whole, seconds=40)


def test_another_authority_takes_over(cluster: KeptCluster) -> None:
    """Without overlap: a node still has its old certificate when the keeper trusts the new one."""
    new = trustme.CA()
    cluster.certify(new)

    def serves() -> bool:
        try:
            return all(serial(pod, new) for pod in range(3))
        except ssl.SSLError:
            return False

    until_blocking("the new authority", serves)
    until_blocking("the cluster", cluster.is_whole, seconds=40)
