"""Timers of Kafka and Redis: short where a peer takes over, long where there is none to do so."""

from pathlib import Path

import pytest

from microfin_local import kafka, redis_cluster
from microfin_local.kafka import Broker, KafkaCluster, Listener
from microfin_local.redis_cluster import RedisNode

_TIMES = ("broker.heartbeat.interval.ms", "broker.session.timeout.ms")


async def _settings(folder: Path, brokers: int, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Return the settings of the first of `brokers`, whose storage is formatted already."""
    monkeypatch.setattr(kafka, "find_program", lambda name: name)
    nodes = [
        Broker(number, (Listener(kafka.PLAIN, 1, 1),), 2, folder / str(number))
        for number in range(1, brokers + 1)
    ]
    (nodes[0].folder / "data").mkdir(parents=True)
    (nodes[0].folder / "data" / "meta.properties").touch()
    await kafka.prepare(KafkaCluster(nodes, folder), nodes[0], "id", folder / "log")
    text = (nodes[0].folder / "server.properties").read_text()
    return dict(line.split("=", 1) for line in text.splitlines())


async def test_brokers_notice_within_two_seconds_that_one_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = await _settings(tmp_path, 3, monkeypatch)
    assert [settings[name] for name in _TIMES] == ["250", "2000"]
    assert "metadata.max.idle.interval.ms" not in settings


async def test_one_broker_has_nobody_who_could_notice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = await _settings(tmp_path, 1, monkeypatch)
    assert [settings[name] for name in _TIMES] == ["500", "2000"]
    assert settings["metadata.max.idle.interval.ms"] == "0"


@pytest.mark.parametrize(("replicas", "expected"), [(True, []), (False, ["hz 2"])])
def test_nodes_of_redis_look_seldom_only_without_replicas(
    replicas: bool, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_cluster, "find_program", lambda name: name)
    node = RedisNode(0, 1, 1, 2, tmp_path)
    redis_cluster.prepare(node, forget=False, replicas=replicas)
    lines = (tmp_path / "redis.conf").read_text().splitlines()
    assert [line for line in lines if line.startswith("hz")] == expected
