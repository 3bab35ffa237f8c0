"""A shard lost with its volume, restored from an older copy, and what the log holds decided again.

It goes as docs/runbooks/restored-shard.md says, section "On Kubernetes". The copy is a second
Cluster, made by `bootstrap.pg_basebackup` while money moves.
"""

import re
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio
import yaml

from e2e import kubernetes_bank
from e2e.figures import figure
from e2e.kubernetes_bank import Bank, moving_money
from e2e.kubernetes_cluster import ROOT, apply, get, until
from microfin_deploy.commands import progress
from microfin_deploy.releases import install_data

pytestmark = pytest.mark.timeout(600)

SHARD = "microfin-postgres-0"
COPY = "copy-of-shard-0"
STATE = """
    SELECT count(*), md5(string_agg(number || ':' || seq || ':' || balance, ' ' ORDER BY number))
    FROM accounts
"""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def bank() -> AsyncIterator[Bank]:
    async with kubernetes_bank.new_bank() as made:
        yield made


def source(cluster: str) -> dict[str, Any]:
    """How a new Cluster reads a running one, by the client certificate that CloudNativePG makes."""
    return {
        "bootstrap": {
            "pg_basebackup": {"source": cluster, "database": "microfin", "owner": "microfin_owner"}
        },
        "externalClusters": [
            {
                "name": cluster,
                "connectionParameters": {
                    "host": f"{cluster}-rw",
                    "user": "streaming_replica",
                    "sslmode": "verify-full",
                },
                "sslKey": {"name": f"{cluster}-replication", "key": "tls.key"},
                "sslCert": {"name": f"{cluster}-replication", "key": "tls.crt"},
                "sslRootCert": {"name": f"{cluster}-ca", "key": "ca.crt"},
            }
        ],
    }


def let_clusters_copy(bank: Bank) -> None:
    """Allow what copying needs, by the policy of the guide."""
    text = (ROOT / "docs/guide/disaster-recovery.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    (policy,) = (it for block in blocks if (it := yaml.safe_load(block))["kind"] == "NetworkPolicy")
    policy["metadata"]["namespace"] = bank.namespace
    apply(policy)


def copy(bank: Bank) -> None:
    """Make the copy that will be older than what is lost."""
    live = get(f"cluster/{SHARD}", bank.namespace)["spec"]
    kept = ("imageName", "storage", "resources", "postgresql")
    spec = {name: live[name] for name in kept} | {"instances": 1, **source(SHARD)}
    metadata = {"name": COPY, "namespace": bank.namespace}
    apply(
        {
            "apiVersion": "postgresql.cnpg.io/v1",
            "kind": "Cluster",
            "metadata": metadata,
            "spec": spec,
        }
    )
    bank.kubectl("wait", "--for=condition=Ready", f"cluster/{COPY}", "--timeout=180s")


def state(bank: Bank) -> str:
    """Return what all accounts hold, as one line."""
    primary = get(f"cluster/{SHARD}", bank.namespace)["status"]["currentPrimary"]
    place = ("exec", primary, "-c", "postgres", "--")
    return bank.kubectl(*place, "psql", "-d", "microfin", "-Atc", STATE)


async def stop(bank: Bank) -> None:
    """Stop the API and the workers; a paused MicrofinCluster lets them be."""
    bank.kubectl("patch", "mfc/microfin", "--type=merge", "-p", '{"spec": {"paused": true}}')
    bank.kubectl("scale", "deployment/microfin-api", "statefulset/microfin-worker", "--replicas=0")
    for component in ("api", "worker"):
        label = f"app.kubernetes.io/component={component}"
        bank.kubectl("wait", "--for=delete", "pod", "-l", label, "--timeout=120s")


async def lose(bank: Bank) -> None:
    """Delete the shard with its volume."""
    bank.kubectl("delete", f"cluster/{SHARD}")
    label = f"cnpg.io/cluster={SHARD},cnpg.io/podRole=instance"
    await until("the volume is gone", lambda: not _is_there(bank, label))


def _is_there(bank: Bank, label: str) -> bool:
    return bool(bank.kubectl("get", "pods,persistentvolumeclaims", "-l", label, "-o", "name"))


def restore(bank: Bank) -> None:
    """Make the shard again, from the copy, by the chart's own value."""
    data = {**bank.wanted.data, "postgres": {"restore": {"0": source(COPY)}}}
    install_data(replace(bank.wanted, data=data), bank.platform, progress())
    bank.kubectl("rollout", "restart", "deployment/microfin-pooler-0")
    bank.kubectl("rollout", "status", "deployment/microfin-pooler-0", "--timeout=120s")


def recover(bank: Bank, *arguments: str) -> str:
    printed = bank.kubectl(
        "exec", "job/repair", "--", "microfin", "recover", *arguments, "--shard", "0"
    )
    print(printed)
    return printed


async def test_nothing_is_lost_that_the_log_still_holds(bank: Bank) -> None:
    let_clusters_copy(bank)
    async with moving_money(bank, 3):
        copy(bank)
    await stop(bank)
    before = state(bank)
    await lose(bank)
    began = time.monotonic()
    restore(bank)
    assert state(bank) != before, "the copy is not older, so there is nothing to recover"

    bank.kubectl("create", "job", "repair", "--from=cronjob/microfin-tools")
    bank.kubectl("wait", "--for=condition=Ready", "pod", "-l", "job-name=repair", "--timeout=60s")
    recover(bank, "check")
    recover(bank, "prepare")
    bank.kubectl("patch", "mfc/microfin", "--type=merge", "-p", '{"spec": {"paused": false}}')
    assert "all invariants hold" in recover(bank, "verify")
    assert state(bank) == before
    bank.kubectl("scale", "deployment/microfin-api", "--replicas=1")
    bank.kubectl("rollout", "status", "deployment/microfin-api", "--timeout=120s")
    figure(f"a lost shard restored and caught up in {time.monotonic() - began:.0f} s")
    bank.kubectl("delete", "job/repair", "--wait=false")

    async with moving_money(bank, 3) as mover:
        pass
    mover.report.assert_money_is_right()
    await bank.audit()
