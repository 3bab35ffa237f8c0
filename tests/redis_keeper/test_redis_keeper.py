"""The scripts by which the chart's Redis nodes make and repair their cluster."""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from redis_keeper.kept_cluster import FILES, KeptCluster
from support.waiting import until_blocking

THIRDS: Final = ["0-5460", "5461-10921", "10922-16383"]


@pytest.fixture
def cluster(real_components: None, tmp_path: Path) -> Iterator[KeptCluster]:
    made = KeptCluster(tmp_path)
    yield made
    made.kill()


def addresses(network: int, count: int) -> list[str]:
    return [f"127.77.{network}.{number + 1}" for number in range(count)]


def start(cluster: KeptCluster, network: int, count: int) -> None:
    cluster.start(addresses(network, count))
    until_blocking("the cluster", cluster.is_whole, seconds=40)


def test_a_new_cluster_and_all_pods_back_under_other_addresses(cluster: KeptCluster) -> None:
    start(cluster, 1, 6)
    made = cluster.roles()
    assert sorted(slots for _, _, slots in made.values() if slots) == sorted(THIRDS)
    assert [made[f"microfin-redis-{pod}"][0] for pod in range(6)] == ["master"] * 3 + [
        "replica"
    ] * 3
    identities = [cluster.ask(pod, "CLUSTER", "MYID") for pod in range(6)]

    cluster.kill()
    start(cluster, 2, 6)
    assert [cluster.ask(pod, "CLUSTER", "MYID") for pod in range(6)] == identities
    back = cluster.roles()
    assert sorted(address for _, address, _ in back.values()) == addresses(2, 6)
    assert sorted(slots for _, _, slots in back.values() if slots) == sorted(THIRDS)

    # Each where another was before: the node that answers there is not the one that is looked for.
    cluster.kill()
    cluster.start(addresses(2, 6)[::-1])
    until_blocking("the cluster", cluster.is_whole, seconds=40)
    assert [cluster.ask(pod, "CLUSTER", "MYID") for pod in range(6)] == identities


@pytest.mark.parametrize("other", [3, 8], ids=["the same address", "another address"])
def test_a_master_that_lost_its_volume_is_replaced(cluster: KeptCluster, other: int) -> None:
    start(cluster, 3, 6)
    lost = cluster.ask(0, "CLUSTER", "MYID")
    cluster.kill()
    cluster.lose_volume(0)
    start(cluster, other, 6)
    served = sorted(slots for role, _, slots in cluster.roles().values() if role == "master")
    assert served == sorted(THIRDS), "the replica has taken over, and the new node follows somebody"
    assert lost not in cluster.ask(1, "CLUSTER", "NODES")


@pytest.mark.parametrize("other", [4, 9], ids=["the same address", "another address"])
def test_a_master_without_a_replica_that_lost_its_volume_begins_again(
    cluster: KeptCluster, other: int
) -> None:
    start(cluster, 4, 3)
    cluster.kill()
    cluster.lose_volume(1)
    start(cluster, other, 3)
    assert cluster.roles()["microfin-redis-1"][::2] == ("master", THIRDS[1])
    assert "forget" in cluster.said(0)


def test_replicas_are_added_to_masters_that_have_none_and_removed(cluster: KeptCluster) -> None:
    start(cluster, 5, 3)
    cluster.kill()
    start(cluster, 5, 6)
    replies = [cluster.ask(pod, "INFO", "replication") for pod in range(3)]
    assert all("role:master" in it and "connected_slaves:1" in it for it in replies)
    cluster.kill()
    start(cluster, 5, 3)
    assert len(cluster.roles()) == 3


def test_a_third_that_went_with_its_replicas_is_served_again(cluster: KeptCluster) -> None:
    """Fewer replicas, and both nodes of a third were among those that went."""
    start(cluster, 10, 6)
    cluster.leave(0)
    assert "role:slave" in cluster.ask(0, "INFO", "replication")
    until_blocking("the cluster", cluster.is_whole, seconds=40)
    masters = [pod for pod in range(1, 3) if cluster.roles()[f"microfin-redis-{pod}"][2]]
    other = cluster.ask(masters[0], "CLUSTER", "MYID")
    assert cluster.ask(0, "CLUSTER", "REPLICATE", other) == "OK"
    cluster.kill()
    start(cluster, 10, 3)
    assert "stops following a master" in cluster.said(0)
    assert cluster.roles()["microfin-redis-0"][::2] == ("master", THIRDS[0])


def test_a_master_that_leaves_hands_its_part_over(cluster: KeptCluster) -> None:
    start(cluster, 6, 6)
    cluster.leave(0)
    assert "role:slave" in cluster.ask(0, "INFO", "replication")
    until_blocking("the cluster", cluster.is_whole, seconds=40)
    after = cluster.roles()
    assert sorted(slots for _, _, slots in after.values() if slots) == sorted(THIRDS)
    cluster.leave(0)  # a replica has nothing to hand over
    assert cluster.roles() == after


def test_addresses_with_colons(cluster: KeptCluster) -> None:
    """IPv6: made, back under other addresses, and handed over."""
    mapped = [f"::ffff:{address}" for address in addresses(12, 6)]
    cluster.start(mapped)
    until_blocking("the cluster", cluster.is_whole, seconds=40)
    assert sorted(address for _, address, _ in cluster.roles().values()) == mapped
    identities = [cluster.ask(pod, "CLUSTER", "MYID") for pod in range(6)]
    cluster.kill()
    cluster.start([f"::ffff:{address}" for address in addresses(13, 6)])
    until_blocking("the cluster", cluster.is_whole, seconds=40)
    assert [cluster.ask(pod, "CLUSTER", "MYID") for pod in range(6)] == identities
    before = {pod for pod, (role, _, _) in cluster.roles().items() if role == "master"}
    assert "microfin-redis-0" in before
    cluster.leave(0)
    assert "role:slave" in cluster.ask(0, "INFO", "replication")


def test_a_master_that_leaves_asks_again_when_it_was_refused(cluster: KeptCluster) -> None:
    """As while nodes are still connecting to each other."""
    start(cluster, 11, 6)
    cluster.refuse_once("failover")
    cluster.leave(0)
    assert "role:slave" in cluster.ask(0, "INFO", "replication")


def test_a_node_alone_is_not_ready_and_takes_nothing(cluster: KeptCluster) -> None:
    """Two of the three never come: whose slots are whose is not for one to decide."""
    cluster.start(addresses(7, 3), only=0)
    until_blocking("the node", lambda: "PONG" in cluster.ask(0, "PING"), seconds=40)
    time.sleep(3)  # The keeper looks once a second.
    assert "cluster_slots_assigned:0" in cluster.ask(0, "CLUSTER", "INFO")
    assert not cluster.ready(0)


def test_scripts_are_plain_shell() -> None:
    for script in sorted(FILES.glob("*.sh")):
        subprocess.run(["sh", "-n", str(script)], check=True)
