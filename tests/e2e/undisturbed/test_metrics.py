"""Every metric that alerts or dashboards name and that this cluster can report, in real scrapes.

Of CloudNativePG, microfin, kube-state-metrics and the kubelet; `make test` looks for Kafka's and
Redis'.
"""

import asyncio
import json
import os
import shutil
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from e2e.kubernetes_bank import API_IMAGE, Bank
from e2e.kubernetes_cluster import apply, get, kubectl, own_namespace, until
from observability.shipped import metrics_of_others, reported, used_metrics
from support.ports import free_port

pytestmark = pytest.mark.timeout(600)

# CloudNativePG runs its queries once in 30 s, so a new instance reports little at first.
_PATIENCE_SECONDS = 90
_READ = (
    "import sys, urllib.request as web; print(web.urlopen(sys.argv[1], timeout=20).read().decode())"
)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def reader() -> AsyncIterator[str]:
    """A pod where Prometheus would be: in another namespace. Gives the namespace."""
    async with own_namespace() as namespace:
        container = {
            "name": "reader",
            "image": API_IMAGE,
            "command": ["sleep", "3600"],
            "volumeMounts": [{"name": "data", "mountPath": "/data", "readOnly": True}],
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            },
        }
        security = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
        volume = {"name": "data", "persistentVolumeClaim": {"claimName": "reader"}}
        apply(
            *_volume(namespace),
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "reader", "namespace": namespace},
                "spec": {
                    "securityContext": security,
                    "containers": [container],
                    "volumes": [volume],
                },
            },
        )
        kubectl("-n", namespace, "wait", "--for=condition=Ready", "pod/reader", "--timeout=120s")
        yield namespace
        kubectl("delete", "persistentvolume", namespace, "--wait=false")


def _volume(namespace: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a volume of the kind `local` and a claim of it: of a host's folder, which these
    clusters give, the kubelet reports nothing."""
    (node, *_) = get("nodes", namespace)["items"]
    host = node["metadata"]["labels"]["kubernetes.io/hostname"]
    term = {"key": "kubernetes.io/hostname", "operator": "In", "values": [host]}
    common = {"accessModes": ["ReadWriteOnce"], "storageClassName": ""}
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": namespace},
        "spec": {
            **common,
            "capacity": {"storage": "1Gi"},
            "local": {"path": "/tmp"},  # noqa: S108 - the node's, and only looked at
            "claimRef": {"name": "reader", "namespace": namespace},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [term]}]}},
        },
    }
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "reader", "namespace": namespace},
        "spec": {
            **common,
            "volumeName": namespace,
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }
    return volume, claim


def scrape(reader: str, bank: Bank, selector: str, port: int) -> set[str]:
    """Return the names that the pods of a selector report, all together."""
    pods = json.loads(bank.kubectl("get", "pods", "-l", selector, "-o", "json"))["items"]
    assert pods, f"no pods of {selector}"
    found: set[str] = set()
    for pod in pods:
        url = f"http://{pod['status']['podIP']}:{port}/metrics"
        found |= reported(kubectl("-n", reader, "exec", "reader", "--", "python", "-c", _READ, url))
    return found


@pytest.mark.parametrize(
    ("part", "selector", "port"),
    [
        ("CloudNativePG's instance", "cnpg.io/podRole=instance", 9187),
        ("CloudNativePG's pooler", "cnpg.io/poolerName=microfin-pooler-0", 9127),
    ],
)
async def test_cloudnativepg_reports_what_is_asked_for(
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
        raise AssertionError(f"{part} does not report {sorted(missing)}") from late


@pytest.mark.parametrize(
    ("part", "pod", "port"),
    [("worker", "microfin-worker-0", 8081), ("api", "deploy/microfin-api", 8080)],
)
async def test_microfin_reports_what_is_asked_for(
    bank: Bank, part: str, pod: str, port: int
) -> None:
    """Asked from inside the pod: the bank's own policies let in Prometheus' namespace alone."""
    url = f"http://127.0.0.1:{port}/metrics"
    page = await asyncio.to_thread(bank.kubectl, "exec", pod, "--", "python", "-c", _READ, url)
    wanted = {name for name in used_metrics() if name.startswith((f"microfin_{part}_", "process_"))}
    assert len(wanted) > 5
    assert wanted <= reported(page)


async def test_the_operator_reports_this_cluster(bank: Bank) -> None:
    pods = get("pods", bank.wanted.operator_namespace)["items"]
    (pod,) = (it["metadata"]["name"] for it in pods)
    place = ("-n", bank.wanted.operator_namespace, "exec", pod, "--", "python", "-c", _READ)
    page = await asyncio.to_thread(kubectl, *place, "http://127.0.0.1:8080/metrics")
    wanted = {name for name in used_metrics() if name.startswith("microfin_operator_")}
    assert wanted <= reported(page)
    assert f'cluster="microfin",namespace="{bank.namespace}"' in page


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def kube_state_metrics() -> AsyncIterator[str]:
    """The address of kube-state-metrics' page; it runs outside the cluster."""
    program = shutil.which("kube-state-metrics")
    if program is None:
        pytest.skip("no kube-state-metrics on PATH; tests/e2e/on_lab.sh builds one")
    port, own_port = free_port(), free_port()
    process = await asyncio.create_subprocess_exec(
        program,
        "--resources=jobs,cronjobs",
        *("--host=127.0.0.1", f"--port={port}"),
        *("--telemetry-host=127.0.0.1", f"--telemetry-port={own_port}"),
        f"--kubeconfig={os.environ['KUBECONFIG']}",
        stdout=DEVNULL,
        stderr=DEVNULL,
    )
    yield f"http://127.0.0.1:{port}/metrics"
    process.kill()
    await process.wait()


async def test_kube_state_metrics_reports_audits_as_the_alerts_ask(
    bank: Bank, kube_state_metrics: str
) -> None:
    """Of an audit that is green, and of one that ends as if it had found violations."""
    green = await bank.run_audit("microfin-audit-green", "microfin", "audit", "--at-rest")
    assert green[0] == "Complete", green[1]
    assert (await bank.run_audit("microfin-audit-red", "sh", "-c", "exit 1"))[0] == "Failed"
    place = f'namespace="{bank.namespace}"'
    expected = (
        f'kube_job_failed{{{place},job_name="microfin-audit-red",condition="true"}} 1',
        f'kube_job_status_start_time{{{place},job_name="microfin-audit-red"}}',
        f'kube_job_status_start_time{{{place},job_name="microfin-audit-green"}}',
        f'kube_cronjob_created{{{place},cronjob="microfin-audit"}}',
    )
    page = ""

    def is_reported() -> bool:
        nonlocal page
        try:
            page = httpx.get(kube_state_metrics).text
        except httpx.ConnectError:
            return False
        return all(line in page for line in expected)

    await until("kube-state-metrics", is_reported, 60)
    failed = f'kube_job_failed{{{place},job_name="microfin-audit-green"'
    assert failed not in page
    wanted = {name for name, by in metrics_of_others().items() if by == "kube-state-metrics"}
    assert wanted <= reported(page)


async def test_the_kubelet_reports_volumes_as_the_alert_asks(reader: str) -> None:
    """It looks at a volume once a minute."""
    wanted = {name for name, by in metrics_of_others().items() if by == "the kubelet"}
    assert wanted
    nodes = [it["metadata"]["name"] for it in get("nodes", reader)["items"]]
    series = [f'{name}{{namespace="{reader}",persistentvolumeclaim="reader"}}' for name in wanted]

    def is_reported() -> bool:
        pages = [kubectl("get", "--raw", f"/api/v1/nodes/{it}/proxy/metrics") for it in nodes]
        return all(any(line in page for page in pages) for line in series)

    await until("the kubelet", is_reported, 150)
