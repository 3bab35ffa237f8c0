"""What a broker reports through Strimzi's metrics reporter, with the chart's list of names."""

import asyncio
from asyncio.subprocess import STDOUT
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
import yaml
from aiokafka import AIOKafkaProducer

from microfin_local.kafka import (
    KAFKA_VERSION,
    PLAIN,
    Broker,
    KafkaCluster,
    Listener,
    find_jars,
    make_cluster_id,
    make_topic,
    prepare,
)
from microfin_local.ports import Ports
from observability.shipped import ROOT, metrics_of_others, reported

pytestmark = pytest.mark.timeout(120)

# As Strimzi writes them for `type: strimziMetricsReporter`.
_REPORTER = """\
metric.reporters=io.strimzi.kafka.metrics.KafkaPrometheusMetricsReporter
kafka.metrics.reporters=io.strimzi.kafka.metrics.YammerPrometheusMetricsReporter
prometheus.metrics.reporter.listener.enable=true
prometheus.metrics.reporter.listener=http://127.0.0.1:{port}
prometheus.metrics.reporter.allowlist={names}
"""


@pytest_asyncio.fixture(loop_scope="session")
async def page(real_components: None, tmp_path: Path) -> AsyncIterator[str]:
    """The address of a broker's metrics, in whose topic there is a record."""
    ports = Ports(tmp_path / "ports.json", random_ports=True)
    port, controller, metrics = (ports.choose(it, 0) for it in ("kafka", "controller", "metrics"))
    broker = Broker(1, (Listener(PLAIN, port, port),), controller, tmp_path / "kafka")
    cluster = KafkaCluster([broker], find_jars(ROOT / f".local/cache/kafka-{KAFKA_VERSION}"))
    program = await prepare(cluster, broker, make_cluster_id(tmp_path / "id"), tmp_path / "log")
    values = yaml.safe_load((ROOT / "charts/microfin-data/values.yaml").read_text("utf-8"))
    names = ",".join(values["kafka"]["metrics"])
    with (broker.folder / "server.properties").open("a", encoding="utf-8") as settings:
        settings.write(_REPORTER.format(port=metrics, names=names))
    with (tmp_path / "log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *program.arguments, cwd=broker.folder, stdout=log, stderr=STDOUT
        )
    try:
        while not await has_topic(cluster):
            assert process.returncode is None, (tmp_path / "log").read_text("utf-8")[-3000:]
            await asyncio.sleep(0.2)
        async with AIOKafkaProducer(bootstrap_servers=cluster.bootstrap) as producer:
            await producer.send_and_wait("commands", b"a record")
        yield f"http://127.0.0.1:{metrics}/metrics"
    finally:
        process.kill()
        await process.wait()


async def has_topic(cluster: KafkaCluster) -> bool:
    try:
        return await make_topic(cluster, "commands", 3)
    except OSError:
        return False


async def test_a_broker_reports_what_dashboards_and_alerts_ask_for(page: str) -> None:
    wanted = {
        name for name, by in metrics_of_others().items() if by == "Strimzi's metrics reporter"
    }
    assert len(wanted) > 8
    async with httpx.AsyncClient() as client:
        found = reported((await client.get(page)).text)
    assert wanted <= found
    assert not [name for name in found if name.startswith("kafka_coordinator_")], "not on the list"
