"""What helm does to a MicrofinCluster that people scale; needs an API server and no data plane.

MICROFIN_E2E_HELMS names other helms to test with, by spaces.
"""

import subprocess
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
import yaml

from e2e import kubernetes_cluster
from e2e.helms import HELMS
from e2e.kubernetes_cluster import CUSTOM_RESOURCE, ROOT, apply, get, kubectl

QUIET = ("--set", "migrations.enabled=false,audit.enabled=false,trim.enabled=false,paused=true")


@pytest_asyncio.fixture(loop_scope="session")
async def namespace() -> AsyncIterator[str]:
    kubectl("apply", "--server-side", "--force-conflicts", "-f", str(CUSTOM_RESOURCE))
    async with kubernetes_cluster.own_namespace() as name:
        yield name


def run(helm: str, namespace: str, *arguments: str) -> None:
    done = subprocess.run(
        [helm, *arguments, "--namespace", namespace], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def partitions(namespace: str) -> int:
    return int(get("mfc/microfin", namespace)["spec"]["partitions"])


@pytest.mark.parametrize("helm", HELMS)
def test_neither_upgrade_nor_rollback_shrinks(namespace: str, helm: str) -> None:
    chart = str(ROOT / "charts/microfin")
    run(helm, namespace, "install", "microfin", chart, *QUIET)
    assert partitions(namespace) == 3
    kubectl("-n", namespace, "scale", "mfc/microfin", "--replicas=12")
    run(helm, namespace, "upgrade", "microfin", chart, *QUIET, "--set", "log.level=debug")
    assert partitions(namespace) == 12
    kubectl("-n", namespace, "scale", "mfc/microfin", "--replicas=18")
    run(helm, namespace, "rollback", "microfin", "1")
    assert partitions(namespace) == 18
    run(helm, namespace, "upgrade", "microfin", chart, *QUIET, "--set", "topic.replicas=1")
    assert partitions(namespace) == 18


@pytest.mark.parametrize("helm", HELMS)
def test_the_session_key_outlives_upgrades_and_the_release(namespace: str, helm: str) -> None:
    chart = str(ROOT / "charts/microfin")
    run(helm, namespace, "install", "microfin", chart, *QUIET)
    key = get("secret/microfin-session", namespace)["data"]["secret"]
    run(helm, namespace, "upgrade", "microfin", chart, *QUIET, "--set", "log.level=debug")
    assert get("secret/microfin-session", namespace)["data"]["secret"] == key
    run(helm, namespace, "uninstall", "microfin")
    run(helm, namespace, "install", "microfin", chart, *QUIET)
    assert get("secret/microfin-session", namespace)["data"]["secret"] == key


@pytest.mark.parametrize("helm", HELMS)
def test_the_autoscaler_keeps_its_number(namespace: str, helm: str) -> None:
    chart = str(ROOT / "charts/microfin")
    run(helm, namespace, "install", "microfin", chart, *QUIET)
    kubectl("-n", namespace, "scale", "deployment/microfin-api", "--replicas=5")
    run(helm, namespace, "upgrade", "microfin", chart, *QUIET, "--set", "log.level=debug")
    assert get("deployment/microfin-api", namespace)["spec"]["replicas"] == 5


@pytest.mark.parametrize(
    "values",
    [
        (),
        ("postgres.shards=2",),
        ("topic.strimzi.cluster=", "kafka.tls=false", "redis.secret=", "postgres.sslMode=disable"),
        ("ingress.enabled=true", "api.autoscaling.enabled=false", "imagePullSecrets[0].name=pull"),
    ],
)
def test_the_api_server_accepts_all_of_it(namespace: str, values: tuple[str, ...]) -> None:
    sets = [part for value in values for part in ("--set", value)]
    chart = str(ROOT / "charts/microfin")
    rendered = subprocess.run(
        ["helm", "template", "microfin", chart, "--namespace", namespace, *sets],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    # A pod is judged with its service account, which has to be there for that.
    apply(*(it for it in yaml.safe_load_all(rendered) if it["kind"] == "ServiceAccount"))
    kubectl(
        *("apply", "--dry-run=server", "--server-side", "--validate=strict", "-f", "-"),
        stdin=rendered,
    )


@pytest.mark.parametrize("helm", HELMS)
def test_a_retry_leaves_a_migration_that_still_runs_alone(namespace: str, helm: str) -> None:
    """Without a data plane its pod cannot start, so the Job runs until its deadline."""
    chart = str(ROOT / "charts/microfin")
    again = [helm, "upgrade", "--install", "microfin", chart, "--namespace", namespace]
    again += ["--set", "audit.enabled=false,trim.enabled=false,paused=true", "--timeout", "5s"]
    uids = []
    for _ in range(2):
        assert subprocess.run(again, capture_output=True, text=True, check=False).returncode
        first = get("job/microfin-migrate-1", namespace)
        assert "deletionTimestamp" not in first["metadata"]
        uids.append(first["metadata"]["uid"])
    assert uids[0] == uids[1]
    assert get("job/microfin-migrate-2", namespace)["metadata"]["uid"] not in uids
    # After an uninstallation the revisions begin anew, and with them the names.
    run(helm, namespace, "uninstall", "microfin")
    done = subprocess.run(again, capture_output=True, text=True, check=False)
    assert "still runs: wait for it" in done.stderr
    assert get("job/microfin-migrate-1", namespace)["metadata"]["uid"] == uids[0]
