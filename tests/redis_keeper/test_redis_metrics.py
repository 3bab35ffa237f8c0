"""What an exporter next to a Redis node reports, as the user that the chart gives it."""

import os
import subprocess
from collections.abc import Iterator
from itertools import pairwise

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from microfin_local.programs import find_program
from observability.shipped import metrics_of_others
from redis_keeper.kept_cluster import KeptCluster, running_cluster
from support.waiting import until

ADDRESSES = ["127.77.30.1", "127.77.30.2", "127.77.30.3"]
EXPORTER = "127.77.30.1:9121"


@pytest.fixture(scope="module")
def cluster(
    real_components: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[KeptCluster]:
    with running_cluster(tmp_path_factory.mktemp("redis") / "cluster", ADDRESSES) as made:
        yield made


@pytest.fixture
def exporter(cluster: KeptCluster) -> Iterator[None]:
    """Run the exporter with the chart's settings of it."""
    process = subprocess.Popen(
        [find_program("prometheus-redis-exporter"), "-web.listen-address", EXPORTER],
        env={
            "PATH": os.environ["PATH"],
            "REDIS_ADDR": f"redis://{ADDRESSES[0]}:6379",
            "REDIS_USER": "microfin_metrics",
            "REDIS_PASSWORD": "metrics",
            "REDIS_EXPORTER_CONFIG_COMMAND": "-",
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    yield
    process.kill()
    process.wait()


async def scrape() -> dict[str, float]:
    """Return the values by name; of a name with several labels, one."""
    async with httpx.AsyncClient() as client:
        answer = await until(
            "the exporter answers",
            lambda: client.get(f"http://{EXPORTER}/metrics"),
            20,
            not_yet=(httpx.ConnectError,),
        )
    families = text_string_to_metric_families(answer.text)
    return {sample.name: sample.value for family in families for sample in family.samples}


async def test_an_exporter_reports_what_dashboards_and_alerts_ask_for(
    cluster: KeptCluster, exporter: None
) -> None:
    values = await scrape()
    wanted = {name for name, by in metrics_of_others().items() if by == "redis_exporter"}
    assert len(wanted) > 8
    assert wanted <= values.keys()
    assert (values["redis_up"], values["redis_cluster_state"]) == (1, 1)
    assert values["redis_memory_max_bytes"] == 16 * 2**20


async def test_it_is_refused_only_what_would_show_keys(
    cluster: KeptCluster, exporter: None
) -> None:
    await scrape()
    pairs = pairwise(cluster.ask(0, "ACL", "LOG").splitlines())
    refused = {text for name, text in pairs if name == "object"}
    assert refused <= {"client|setname", "latency|latest", "slowlog|len", "slowlog|get", "config"}
