"""Every metric of CloudNativePG and microfin that alerts or dashboards name, in real scrapes; and
what a load run tells of the bank's metrics and of its own."""

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path

import kubernetes_bank
import prometheus_pod
import pytest
import pytest_asyncio
from kubernetes_bank import API_IMAGE, Bank
from kubernetes_cluster import apply, get, kubectl, own_namespace, until

from microfin_deploy.commands import helm
from microfin_loadtest.kubernetes_cluster import Namespace
from microfin_loadtest.kubernetes_run import IMAGE, KubernetesRequest, run_in_cluster
from observability.shipped import metrics_of_others, used_metrics

pytestmark = pytest.mark.timeout(600)

# CloudNativePG runs its queries once in 30 s, so a new instance tells little at first.
_PATIENCE_SECONDS = 90
_READ = (
    "import sys, urllib.request as web; print(web.urlopen(sys.argv[1], timeout=20).read().decode())"
)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def bank() -> AsyncIterator[Bank]:
    """A bank in which money has moved; PostgreSQL with a standby."""
    async with kubernetes_bank.new_bank(postgres={"instances": 2}) as made:
        helm("test", "microfin", "--namespace", made.namespace, "--timeout", "3m")
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def reader() -> AsyncIterator[str]:
    """A pod where Prometheus would be: in another namespace. Gives the namespace."""
    async with own_namespace() as namespace:
        container = {
            "name": "reader",
            "image": API_IMAGE,
            "command": ["sleep", "3600"],
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            },
        }
        security = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
        apply(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "reader", "namespace": namespace},
                "spec": {"securityContext": security, "containers": [container]},
            }
        )
        kubectl("-n", namespace, "wait", "--for=condition=Ready", "pod/reader", "--timeout=120s")
        yield namespace


def told(page: str) -> set[str]:
    """Return the names on a page; those of a family too that has no series yet."""
    names = set(re.findall(r"^([a-zA-Z_:][\w:]*)[ {]", page, re.MULTILINE))
    for name, kind in re.findall(r"^# TYPE (\S+) (\w+)$", page, re.MULTILINE):
        suffixes = ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)
        names |= {name + suffix for suffix in suffixes}
    return names


def scrape(reader: str, bank: Bank, selector: str, port: int) -> set[str]:
    """Return the names that the pods of a selector tell, all together."""
    pods = json.loads(bank.kubectl("get", "pods", "-l", selector, "-o", "json"))["items"]
    assert pods, f"no pods of {selector}"
    found: set[str] = set()
    for pod in pods:
        url = f"http://{pod['status']['podIP']}:{port}/metrics"
        found |= told(kubectl("-n", reader, "exec", "reader", "--", "python", "-c", _READ, url))
    return found


@pytest.mark.parametrize(
    ("part", "selector", "port"),
    [
        ("CloudNativePG's instance", "cnpg.io/podRole=instance", 9187),
        ("CloudNativePG's pooler", "cnpg.io/poolerName=microfin-pooler-0", 9127),
    ],
)
async def test_cloudnativepg_tells_what_is_asked_for(
    bank: Bank, reader: str, part: str, selector: str, port: int
) -> None:
    wanted = {name for name, by in metrics_of_others().items() if by == part}
    assert wanted
    missing = set(wanted)

    def nothing_is_missing() -> bool:
        nonlocal missing
        missing = wanted - scrape(reader, bank, selector, port)
        return not missing

    try:
        await until(part, nothing_is_missing, _PATIENCE_SECONDS)
    except AssertionError as late:
        raise AssertionError(f"{part} does not tell {sorted(missing)}") from late


@pytest.mark.parametrize(
    ("part", "pod", "port"),
    [("worker", "microfin-worker-0", 8081), ("api", "deploy/microfin-api", 8080)],
)
async def test_microfin_tells_what_is_asked_for(bank: Bank, part: str, pod: str, port: int) -> None:
    """Asked from inside the pod: the bank's own policies let in Prometheus' namespace alone."""
    url = f"http://127.0.0.1:{port}/metrics"
    page = await asyncio.to_thread(bank.kubectl, "exec", pod, "--", "python", "-c", _READ, url)
    wanted = {name for name in used_metrics() if name.startswith((f"microfin_{part}_", "process_"))}
    assert len(wanted) > 5
    assert wanted <= told(page)


async def test_the_operator_tells_of_this_cluster(bank: Bank) -> None:
    pods = get("pods", bank.wanted.operator_namespace)["items"]
    (pod,) = (it["metadata"]["name"] for it in pods)
    place = ("-n", bank.wanted.operator_namespace, "exec", pod, "--", "python", "-c", _READ)
    page = await asyncio.to_thread(kubectl, *place, "http://127.0.0.1:8080/metrics")
    wanted = {name for name in used_metrics() if name.startswith("microfin_operator_")}
    assert wanted <= told(page)
    assert f'cluster="microfin",namespace="{bank.namespace}"' in page


async def test_a_load_run_is_judged_by_prometheus_and_tells_where_time_went(
    bank: Bank, tmp_path: Path
) -> None:
    """All samples come, no request fails, and yet an alert closes the gate."""
    async with own_namespace() as monitoring:
        remote_write = await asyncio.to_thread(prometheus_pod.start, monitoring, bank.namespace)
        request = KubernetesRequest(
            script="money.js",
            rate=20,
            duration="5s",
            state=tmp_path,
            users=10,
            allowed_statuses=frozenset(),
            image=os.environ.get("MICROFIN_E2E_K6_IMAGE", IMAGE),
            remote_write=remote_write,
            prometheus="",
            k6_operator=False,
            keep=False,
        )
        report = await run_in_cluster(request, Namespace(bank.namespace, "microfin"), print)
    assert report["prometheus"]["answered"] == {
        "requests": report["requests"],
        "failed": 0,
        "alerts": [prometheus_pod.RUNS_ALERT],
    }
    alert = f"Critical alerts fired during the run: {prometheus_pod.RUNS_ALERT}."
    assert report["reasons"] == [alert]
    assert report["valid"] is False
    assert report["phases"]["answers"] == report["requests"] > 90
    assert report["phases"]["phases_ms"]["commit"] > 0
