"""Load from inside the cluster, as `make load-k8s` makes it, judged by a Prometheus."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from e2e import prometheus_pod
from e2e.figures import figure
from e2e.k6_operator import k6_operator
from e2e.kubernetes_bank import Bank
from e2e.kubernetes_cluster import own_namespace, until
from microfin_loadtest.kubernetes.cluster import Namespace
from microfin_loadtest.kubernetes.objects import RUN_LABEL
from microfin_loadtest.kubernetes.run import IMAGE, KubernetesRequest, run_in_cluster

pytestmark = pytest.mark.timeout(600)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def remote_write(bank: Bank) -> AsyncIterator[str]:
    """Where a Prometheus accepts samples. An alert of the bank fires while hot-account.js runs."""
    async with own_namespace() as monitoring:
        yield await asyncio.to_thread(prometheus_pod.start, monitoring, bank.namespace)


async def load(
    bank: Bank, state: Path, remote_write: str, script: str, *, operator: bool
) -> dict[str, Any]:
    """Make a run and return its report."""
    request = KubernetesRequest(
        script=script,
        rate=20,
        duration="10s",
        state=state,
        users=10,
        allowed_statuses=frozenset(),
        image=os.environ.get("K6_IMAGE", IMAGE),
        remote_write=remote_write,
        prometheus="",
        k6_operator=operator,
        keep=False,
    )
    return await run_in_cluster(request, Namespace(bank.namespace, "microfin"), print)


async def test_a_run_by_the_k6_operator_counts_and_shows_where_time_went(
    bank: Bank, tmp_path: Path, remote_write: str
) -> None:
    async with k6_operator():
        report = await load(bank, tmp_path, remote_write, "money.js", operator=True)
    assert (report["valid"], report["reasons"]) == (True, [])
    assert report["audit"]["ok"]
    assert report["prometheus"]["answered"] == {
        "requests": report["requests"],
        "failed": 0,
        "alerts": [],
    }
    phases = report["phases"]
    assert phases["answers"] == report["requests"] > 190
    figure(
        f"TestRun of money.js at 20/s: deposit p50 {report['latency_ms']['deposit']['p50']} ms; "
        f"phases {phases['sum_ms']} of {phases['answer_ms']} ms, ratio {phases['ratio']}"
    )

    def nothing_is_left() -> bool:
        kinds = "jobs,configmaps,secrets,networkpolicies"
        return not bank.kubectl("get", kinds, "-l", RUN_LABEL, "-o", "name").strip()

    await until("the run's objects are gone", nothing_is_left, 60)


async def test_an_alert_closes_the_gate(bank: Bank, tmp_path: Path, remote_write: str) -> None:
    """Though all samples came and no request failed. A plain Job runs it."""
    report = await load(bank, tmp_path, remote_write, "hot-account.js", operator=False)
    assert report["prometheus"]["answered"] == {
        "requests": report["requests"],
        "failed": 0,
        "alerts": [prometheus_pod.RUNS_ALERT],
    }
    alert = f"Critical alerts fired during the run: {prometheus_pod.RUNS_ALERT}."
    assert (report["valid"], report["reasons"]) == (False, [alert])
