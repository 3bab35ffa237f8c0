"""The templates redis-*.yaml of the chart microfin-data."""

from typing import Any

import pytest
import yaml

from e2e.data_chart import DEV, PRODUCTION, named, names, render
from e2e.rendered_chart import Item, of_kind


def stateful_set(*values: str, **more: Any) -> Item:
    return named(render(*values, **more), "StatefulSet", "microfin-redis")


def test_it_can_be_switched_off() -> None:
    items = render("redis.enabled=false")
    assert not [it for it in items if "redis" in it["metadata"]["name"]]


@pytest.mark.parametrize(("replicas", "nodes"), [(0, 3), (1, 6), (2, 9)])
def test_three_masters_and_replicas_of_each(replicas: int, nodes: int) -> None:
    item = stateful_set(f"redis.replicas={replicas}")
    assert item["spec"]["replicas"] == nodes
    for container in item["spec"]["template"]["spec"]["containers"]:
        assert {"name": "NODES", "value": str(nodes)} in container["env"]


def test_three_replicas_are_refused() -> None:
    with pytest.raises(ValueError, match="maximum"):
        render("redis.replicas=3")


def test_pods_are_restricted_and_have_no_token() -> None:
    pod = stateful_set()["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert [it["securityContext"] for it in pod["containers"]] == [
        {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        }
    ] * 2
    account = named(render(), "ServiceAccount", "microfin-redis")
    assert account["automountServiceAccountToken"] is False


def test_the_service_names_nodes_that_are_not_ready() -> None:
    service = named(render(), "Service", "microfin-redis")
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert [it["port"] for it in service["spec"]["ports"]] == [6379, 16379]
    assert stateful_set()["spec"]["serviceName"] == "microfin-redis"
    labels = stateful_set()["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()


def test_passwords_come_from_the_secret_and_nowhere_else() -> None:
    pod = stateful_set()["spec"]["template"]["spec"]
    keys = {
        item["name"]: item["valueFrom"]["secretKeyRef"]["key"]
        for item in pod["containers"][0]["env"]
        if "secretKeyRef" in item.get("valueFrom", {})
    }
    assert keys == {
        "REDISCLI_AUTH": "admin-password",
        "WORKER_PASSWORD": "worker-password",
        "API_PASSWORD": "api-password",
    }
    keeper = {it["name"] for it in pod["containers"][1]["env"]}
    assert not keeper & {"WORKER_PASSWORD", "API_PASSWORD"}


def settings(*values: str) -> dict[str, str]:
    data = named(render(*values), "ConfigMap", "microfin-redis")["data"]
    lines = [line for line in data["redis.conf"].splitlines() if line and line[0] != "#"]
    return dict(line.split(" ", 1) for line in lines)


def test_it_is_a_cache_of_limited_size() -> None:
    held = settings("redis.maxMemory=77mb")
    assert held["maxmemory"] == "77mb"
    assert held["maxmemory-policy"] == "allkeys-lru"
    assert held["cluster-require-full-coverage"] == "no"
    assert (held["save"], held["appendonly"]) == ('""', "no")


def test_pods_are_replaced_when_their_settings_change() -> None:
    def checksum(*values: str) -> str:
        annotations = stateful_set(*values)["spec"]["template"]["metadata"]["annotations"]
        return str(annotations["checksum/config"])

    assert checksum() == checksum("redis.replicas=2")
    assert checksum() != checksum("redis.maxMemory=77mb")


def test_all_scripts_are_there_that_the_pod_runs() -> None:
    data = named(render(), "ConfigMap", "microfin-redis")["data"]
    pod = yaml.safe_dump(stateful_set())
    for script in ("start.sh", "keep.sh", "ready.sh", "leave.sh"):
        assert f"/etc/redis/{script}" in pod
        assert data[script].startswith("#!/bin/sh\n")
        assert "common.sh" in data[script]
    assert "MAX_MEMORY" not in data["redis.conf"]


def test_one_pod_is_disrupted_at_a_time() -> None:
    budget = named(render(), "PodDisruptionBudget", "microfin-redis")
    assert budget["spec"]["maxUnavailable"] == 1


def test_volumes_go_with_the_release() -> None:
    spec = stateful_set()["spec"]
    assert spec["persistentVolumeClaimRetentionPolicy"] == {
        "whenScaled": "Delete",
        "whenDeleted": "Delete",
    }
    assert "storageClassName" not in spec["volumeClaimTemplates"][0]["spec"]
    fast = stateful_set("redis.storage.class=fast")["spec"]["volumeClaimTemplates"][0]["spec"]
    assert fast["storageClassName"] == "fast"


@pytest.mark.parametrize(
    ("value", "image"),
    [
        ("redis.image.tag=8.2", "docker.io/library/redis:8.2"),
        (f"redis.image.digest=sha256:{'a' * 64}", f"docker.io/library/redis@sha256:{'a' * 64}"),
    ],
)
def test_the_image(value: str, image: str) -> None:
    name, _, text = value.partition("=")
    containers = stateful_set(f"{name}={text.replace(',', '')}")["spec"]["template"]["spec"]
    assert {it["image"] for it in containers["containers"]} == {image}


def test_spread() -> None:
    for files, when in (((), "ScheduleAnyway"), ((PRODUCTION,), "DoNotSchedule")):
        nodes, zones = stateful_set(files=files)["spec"]["template"]["spec"][
            "topologySpreadConstraints"
        ]
        assert nodes["whenUnsatisfiable"] == when
        assert zones["whenUnsatisfiable"] == "ScheduleAnyway"


def test_development_is_three_masters() -> None:
    assert stateful_set(files=(DEV,))["spec"]["replicas"] == 3
    assert names(render(files=(DEV,)), "StatefulSet") == ["microfin-redis"]
    assert len(of_kind(render(files=(DEV,)), "ConfigMap")) == 1
