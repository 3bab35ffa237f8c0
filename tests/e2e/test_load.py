"""Load runs from inside the cluster, as `make load-k8s` makes them, by the k6 operator."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import kubernetes_bank
import pytest
import pytest_asyncio
from figures import figure
from k6_operator import k6_operator
from kubernetes_bank import Bank
from kubernetes_cluster import until

pytestmark = pytest.mark.timeout(600)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def bank() -> AsyncIterator[Bank]:
    """A bank that is loaded by a TestRun. Its policies and Pod Security are as they always are."""
    async with k6_operator(), kubernetes_bank.new_bank() as made:
        yield made


async def load(bank: Bank, state: Path, *options: str) -> dict[str, Any]:
    """Make a run and return its report."""
    done = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "microfin_loadtest", "kubernetes", "money.js"),
        *("--rate", "20", "--duration", "20s", "--users", "20"),
        *("--namespace", bank.namespace, "--state", str(state), *options),
        env={**os.environ},
        stdout=PIPE,
        stderr=PIPE,
    )
    report, told = await done.communicate()
    print(told.decode(), report.decode())
    made: dict[str, Any] = json.loads(report.decode().splitlines()[-1])
    return made


async def test_the_k6_operator_runs_a_test_run_that_counts(bank: Bank, tmp_path: Path) -> None:
    report = await load(bank, tmp_path, "--operator")
    assert (report["valid"], report["reasons"]) == (True, [])
    assert report["done"] >= 400
    assert report["audit"]["ok"]
    figure(f"TestRun of money.js at 20/s: {report['settled']} settled, deposit p50 "
           f"{report['latency_ms']['deposit']['p50']} ms")  # fmt: skip

    def nothing_is_left() -> bool:
        kinds = "testruns.k6.io,jobs,configmaps,secrets,networkpolicies"
        return not bank.kubectl("get", kinds, "-l", "microfin.io/load", "-o", "name").strip()

    await until("the run's objects are gone", nothing_is_left, 60)
