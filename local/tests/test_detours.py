"""Connections through a proxy: only if one is configured, and then between all components."""

import json
from pathlib import Path

from microfin_local import data_services, kafka
from microfin_local.configuration import Configuration
from microfin_local.credentials import load_or_make
from microfin_local.database_home import choose_home
from microfin_local.detours import Detours
from microfin_local.environments import DataServices
from microfin_local.platform import JARS
from microfin_local.ports import Ports


def _lay_out(folder: Path, *, wanted: bool) -> tuple[DataServices, Detours]:
    configuration = Configuration(state=folder, brokers=3, redis_replicas=1)
    ports = Ports(folder / "ports.json", random_ports=True)
    detours = Detours(ports, wanted=wanted)
    credentials = load_or_make(folder / "secrets.json")
    home = choose_home(folder, folder / "databases")
    services = data_services.lay_out(configuration, ports, detours, credentials, home, JARS)
    return services, detours


def test_without_a_proxy_all_ways_are_direct(tmp_path: Path) -> None:
    services, detours = _lay_out(tmp_path, wanted=False)
    assert detours.all == []
    assert services.kafka is not None
    assert all(len(broker.listeners) == 1 for broker in services.kafka.brokers)
    assert services.environment("api")["MICROFIN_KAFKA"] == services.kafka.bootstrap


def test_with_a_proxy_every_role_has_ways_of_its_own(tmp_path: Path) -> None:
    services, detours = _lay_out(tmp_path, wanted=True)
    assert services.kafka is not None
    for role in ("api", "worker"):
        settings = services.environment(role)
        ports = [detours[f"{role}-kafka-{node}"].port for node in (1, 2, 3)]
        assert settings["MICROFIN_KAFKA"] == ",".join(f"127.0.0.1:{port}" for port in ports)
        assert f":{detours[f'{role}-pgbouncer'].port}/" in settings["MICROFIN_DATABASES"]
        redis = [f"redis://127.0.0.1:{detours[f'redis-{it}'].port}" for it in range(6)]
        assert settings["MICROFIN_REDIS"].split() == redis
    for broker in services.kafka.brokers:
        way = detours[f"kafka-kafka-{broker.node}"]
        between = broker.listener("kafka")
        assert (between.advertised_port, between.port) == (way.port, way.target)
        assert broker.listeners[0].name == kafka.PLAIN


def test_the_proxy_gets_all_connections(tmp_path: Path) -> None:
    _, detours = _lay_out(tmp_path, wanted=True)
    program = detours.program(("proxy", "--fast"), tmp_path)
    assert program.arguments[:2] == ("proxy", "--fast")
    written = json.loads(Path(program.arguments[2]).read_text())
    assert written["control"] == detours.control
    assert {it["name"] for it in written["ways"]} >= {"pgbouncer-postgres-0", "redis-5"}
