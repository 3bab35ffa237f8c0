"""The whole bank on a real cluster, while its components are removed under load.

Each test ends with balances compared by the clients who moved the money, and with a green audit.
"""

import asyncio
import json
import sys
import time
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from functools import partial

import pytest
import pytest_asyncio

from e2e import kubernetes_bank
from e2e.cut_off import Dependency, all_become, cut_off, watched
from e2e.enforcement import needs_enforcement
from e2e.figures import figure
from e2e.kafkas_files import pods_have_the_files
from e2e.kubernetes_bank import Bank, moving_money
from e2e.kubernetes_cluster import ROOT, get, kubectl, until
from e2e.strimzi.replacement import replace_authorities
from e2e.way_in import way_in
from microfin_deploy.commands import helm

pytestmark = pytest.mark.timeout(600)

API = "app.kubernetes.io/component=api"
OPERATOR = "app.kubernetes.io/name=microfin-operator"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def bank() -> AsyncIterator[Bank]:
    """Three partitions; PostgreSQL with a standby, so that it can be switched over."""
    async with kubernetes_bank.new_bank(postgres={"instances": 2}) as made:
        yield made


async def test_from_sign_up_to_transfer_through_the_service(bank: Bank) -> None:
    printed = helm("test", "microfin", "--namespace", bank.namespace, "--logs", "--timeout", "3m")
    assert "all balances are right" in printed
    await bank.audit()


async def test_from_sign_up_to_transfer_from_outside(bank: Bank) -> None:
    """Through the Ingress where a controller serves it, else through the Service."""
    async with way_in(bank) as (url, host):
        script = ROOT / "charts/microfin/files/move_money.py"
        done = await asyncio.create_subprocess_exec(
            sys.executable, str(script), url, host, stdout=PIPE, stderr=STDOUT
        )
        printed, _ = await done.communicate()
    print(f"through {url}, host {host}")
    assert (done.returncode, b"all balances are right" in printed) == (0, True), printed.decode()
    await bank.audit()


async def test_a_worker_deleted_by_force_is_back_soon(bank: Bank) -> None:
    """For a moment there are two of one ordinal; the claim decides who may commit."""
    async with moving_money(bank, 3) as mover:
        bank.kubectl("delete", "pod", "microfin-worker-1", "--force", "--grace-period=0")
        await asyncio.sleep(15)
        await bank.until_active(3)
    mover.report.assert_money_is_right()
    figure(f"partition 1 settled again after {mover.report.gaps['1']} s")
    await bank.audit()


@pytest.mark.parametrize(
    ("by", "before", "after"),
    [("kubectl scale", 3, 6), ("an edit", 6, 7), ("a topic grown by hand", 7, 8)],
)
async def test_it_grows_and_nobody_notices(bank: Bank, by: str, before: int, after: int) -> None:
    async with moving_money(bank, before) as mover:
        began = time.monotonic()
        GROWTHS[by](bank, after)
        await bank.until_active(after)
        took = time.monotonic() - began
    figure(f"grown from {before} to {after} by {by} in {took:.1f} s")
    mover.report.assert_nobody_noticed()
    await bank.audit()


def _edit(bank: Bank, partitions: int) -> None:
    change = f'{{"spec": {{"partitions": {partitions}}}}}'
    bank.kubectl("patch", "mfc/microfin", "--type=merge", "-p", change)


def _grow_topic(bank: Bank, partitions: int) -> None:
    """What an administrator does who knows Kafka and not microfin."""
    place = bank.namespace if bank.platform.strimzi else "kafka"
    change = f'{{"spec": {{"partitions": {partitions}}}}}'
    topic = f"kafkatopic/{bank.wanted.topic}"
    kubectl("-n", place, "patch", topic, "--type=merge", "-p", change)


GROWTHS: dict[str, Callable[[Bank, int], None]] = {
    "kubectl scale": Bank.scale,
    "an edit": _edit,
    "a topic grown by hand": _grow_topic,
}


async def test_workers_scaled_by_hand_are_set_back(bank: Bank) -> None:
    async with moving_money(bank, 8) as mover:
        bank.kubectl("scale", "statefulset/microfin-worker", "--replicas=5")
        await until("all workers", lambda: _workers(bank) == 8)
        await bank.until_active(8)
    mover.report.assert_money_is_right()
    await bank.audit()


def _workers(bank: Bank) -> int:
    found: int = get("statefulset/microfin-worker", bank.namespace)["spec"]["replicas"]
    return found


async def test_the_api_is_rolled_and_nobody_notices(bank: Bank) -> None:
    async with moving_money(bank, 8) as mover:
        bank.kubectl("rollout", "restart", "deployment/microfin-api")
        bank.kubectl("rollout", "status", "deployment/microfin-api", "--timeout=240s")
        # The last old pod still serves those whose connections it holds.
        await until("the old pods are gone", lambda: len(bank.pods(API)) == 2)
    mover.report.assert_nobody_noticed()
    await bank.audit()


async def test_an_upgrade_and_a_rollback_keep_the_partitions(bank: Bank) -> None:
    """The workers are rolled meanwhile, because their settings change."""
    async with moving_money(bank, 8) as mover:
        bank.upgrade(worker={"settings": {"MICROFIN_BATCH_LIMIT": "400"}})
        assert bank.partitions()["desired"] == 8
        await bank.until_active(8)
        helm("rollback", "microfin", "1", "--namespace", bank.namespace)
        assert bank.partitions()["desired"] == 8
        await bank.until_active(8)
    mover.report.assert_money_is_right()
    await bank.audit()


async def test_all_poolers_are_deleted(bank: Bank) -> None:
    async with moving_money(bank, 8) as mover:
        bank.kubectl("delete", "pod", "-l", "cnpg.io/poolerName=microfin-pooler-0", "--wait=false")
        await asyncio.sleep(10)
        await bank.until_active(8)
    mover.report.assert_money_is_right()
    await bank.audit()


async def test_all_of_redis_is_deleted(bank: Bank) -> None:
    """Sessions come from PostgreSQL meanwhile, and answers by look-up: slower, and none fails."""
    async with moving_money(bank, 8) as mover:
        bank.kubectl("delete", "pod", "-l", "app.kubernetes.io/name=microfin-redis", "--wait=false")
        await asyncio.sleep(10)
        bank.kubectl("rollout", "status", "statefulset/microfin-redis", "--timeout=120s")
    mover.report.assert_nobody_noticed()
    figure(f"all Redis pods deleted at once: {mover.report.summary}")
    await bank.audit()


async def test_kafkas_pod_is_deleted(bank: Bank) -> None:
    place, selector = (
        (bank.namespace, "strimzi.io/broker-role=true")
        if bank.platform.strimzi
        else ("kafka", "app=kafka")
    )
    async with moving_money(bank, 8) as mover:
        kubectl("-n", place, "delete", "pod", "-l", selector)
        ready = ("wait", "--for=condition=Ready", "pod", "-l", selector, "--timeout=120s")
        kubectl("-n", place, *ready)
        await bank.until_active(8)
    mover.report.assert_money_is_right()
    await bank.audit()


async def test_the_primary_changes_place(bank: Bank) -> None:
    """A switchover, as `kubectl cnpg promote` asks for it."""
    async with moving_money(bank, 8) as mover:
        began = time.monotonic()
        former = get("cluster/microfin-postgres-0", bank.namespace)["status"]["currentPrimary"]
        (next_one,) = set(bank.pods("cnpg.io/podRole=instance")) - {former}
        _promote(bank, next_one)
        await until("the switchover", lambda: _is_primary(bank, next_one))
        figure(f"switched over in {time.monotonic() - began:.1f} s")
        shard = "cluster/microfin-postgres-0"
        bank.kubectl("wait", "--for=condition=Ready", shard, "--timeout=180s")
        await bank.until_active(8)
    mover.report.assert_money_is_right()
    await bank.audit()


def _promote(bank: Bank, instance: str) -> None:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    status = (
        f'{{"status": {{"targetPrimary": "{instance}", "targetPrimaryTimestamp": "{now}", '
        '"phase": "Switchover in progress", "phaseReason": "a test"}}'
    )
    bank.kubectl(
        "patch", "cluster/microfin-postgres-0", "--subresource=status", "--type=merge", "-p", status
    )


def _is_primary(bank: Bank, instance: str) -> bool:
    status = get("cluster/microfin-postgres-0", bank.namespace)["status"]
    return bool(status["currentPrimary"] == instance == status["targetPrimary"])


async def test_the_primarys_pod_is_deleted(bank: Bank) -> None:
    async with moving_money(bank, 8) as mover:
        shard = "cluster/microfin-postgres-0"
        former = get(shard, bank.namespace)["status"]["currentPrimary"]
        bank.kubectl("delete", "pod", former)
        bank.kubectl("wait", "--for=condition=Ready", shard, "--timeout=240s")
        await bank.until_active(8)
    mover.report.assert_money_is_right()
    await bank.audit()


@needs_enforcement
@pytest.mark.parametrize("dependency", ["Kafka", "PostgreSQL", "the pooler"])
async def test_a_dependency_cut_off_is_noticed_everywhere(
    bank: Bank, dependency: Dependency
) -> None:
    """By a policy, which drops packets: nothing is refused, and nothing is answered."""
    partitions = bank.partitions()["active"]
    async with moving_money(bank, partitions) as mover, watched(bank) as seen:
        probes = {
            "/status": seen.worker_works,
            "/readyz": seen.api_is_well,
            "workers' pods": seen.workers_are_ready,
            "APIs' pods": seen.apis_are_ready,
            "MicrofinCluster": seen.is_ready,
        }
        with cut_off(bank, dependency):
            noticed = await all_become(False, probes, 60)
        settled = await all_become(True, probes, 90)
        await bank.until_active(partitions)
    mover.report.assert_money_is_right()
    figure(f"{dependency} cut off: noticed after {noticed}, settled again after {settled}")
    await bank.audit()


@needs_enforcement
async def test_redis_cut_off_is_said_and_stops_nothing(bank: Bank) -> None:
    partitions = bank.partitions()["active"]
    async with moving_money(bank, partitions) as mover, watched(bank) as seen:
        probes = {"/status": seen.worker_works, "/readyz": seen.api_is_well}
        with cut_off(bank, "Redis"):
            noticed = await all_become(False, probes, 60)
            assert seen.workers_are_ready()
            assert seen.apis_are_ready()
            assert seen.is_ready()
        settled = await all_become(True, probes, 90)
    mover.report.assert_nobody_noticed()
    figure(f"Redis cut off: noticed after {noticed}, settled again after {settled}")
    await bank.audit()


async def test_the_log_is_trimmed_by_the_one_user_who_may(bank: Bank) -> None:
    trim = ("microfin", "log", "trim", "--keep-hours", "0")
    ended, printed = await bank.run_job("microfin-audit", "audit-trims", *trim)
    assert (ended, "Authorization" in printed) == ("Failed", True), printed
    ended, printed = await bank.run_job("microfin-trim", "trim-now", *trim)
    assert ended == "Complete", printed
    assert "\n0 records are gone" not in printed, printed
    await bank.audit()


async def test_kafkas_authorities_are_replaced_under_load(bank: Bank) -> None:
    """With new keys, and at last the old ones are trusted by nobody."""
    kafka = bank.platform.kafka
    if kafka is None:
        pytest.skip("The steps are those of the stand-in for Strimzi's operator.")
    before = _starts(bank)
    async with moving_money(bank, bank.partitions()["active"]) as mover:
        await replace_authorities(partial(pods_have_the_files, bank, kafka))
        await bank.until_active(bank.partitions()["active"])
    mover.report.assert_money_is_right()
    assert _starts(bank) == before
    longest = max(mover.report.gaps.values())
    figure(f"Kafka's authorities replaced under load: longest pause {longest} s (goal 30 s)")
    await bank.audit()


def _starts(bank: Bank) -> dict[str, int]:
    """Return how often each process of API and workers was started again, by its pod's id."""
    selector = "app.kubernetes.io/component in (api, worker)"
    pods = json.loads(bank.kubectl("get", "pods", "-l", selector, "-o", "json"))["items"]
    return {
        pod["metadata"]["uid"]: pod["status"]["containerStatuses"][0]["restartCount"]
        for pod in pods
    }


async def test_the_operator_is_deleted_while_it_grows(bank: Bank) -> None:
    async with moving_money(bank, 8) as mover:
        began = time.monotonic()
        bank.scale(9)
        await until("it grows", lambda: bank.phase() == "Growing")
        for _ in range(3):
            kubectl("-n", bank.wanted.operator_namespace, "delete", "pod", "-l", OPERATOR)
            await asyncio.sleep(2)
        await bank.until_active(9)
        took = time.monotonic() - began
    figure(f"grown from 8 to 9 in {took:.1f} s, the operator deleted 3 times")
    mover.report.assert_nobody_noticed()
    await bank.audit()


async def test_uninstalled_it_holds_nothing_back(bank: Bank) -> None:
    """The operator goes first, which is the wrong order, and still nothing hangs."""
    helm("uninstall", bank.wanted.operator_release, "--namespace", bank.wanted.operator_namespace)
    began = time.monotonic()
    kubectl("delete", "namespace", bank.namespace, "--timeout=90s")
    figure(f"namespace deleted in {time.monotonic() - began:.1f} s")
