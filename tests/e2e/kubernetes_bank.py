"""A bank in namespaces of its own: installed as `make deploy` does, broken, audited, removed."""

import asyncio
import contextlib
import json
import os
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any
from uuid import uuid4

from e2e.client_pod import Client
from e2e.existing_kafka import existing_kafka, kafka_resource
from e2e.figures import figure
from e2e.kubernetes_cluster import CUSTOM_RESOURCE, ROOT, apply, get, kubectl, until
from microfin_deploy.commands import Say, helm, progress
from microfin_deploy.platform import Platform, inspect_platform
from microfin_deploy.releases import (
    Wanted,
    install_application,
    install_data,
    install_operator,
    make_namespaces,
)

TAG = os.environ.get("MICROFIN_E2E_TAG", "e2e")
API_IMAGE = f"ghcr.io/microfin/api:{TAG}"
_MOVER = ROOT / "tests/e2e/money_mover.py"


class Bank:
    """One bank and its data plane."""

    def __init__(self, wanted: Wanted, platform: Platform) -> None:
        self.wanted = wanted
        self.platform = platform
        self.namespace = wanted.namespace

    def kubectl(self, *arguments: str) -> str:
        """Run kubectl in the bank's namespace."""
        return kubectl("-n", self.namespace, *arguments)

    def partitions(self) -> dict[str, int]:
        """Return the MicrofinCluster's partitions: topic, active, desired."""
        found: dict[str, int] = get("mfc/microfin", self.namespace)["status"]["partitions"]
        return found

    def phase(self) -> str:
        """Return the MicrofinCluster's phase."""
        return str(get("mfc/microfin", self.namespace)["status"]["phase"])

    def is_active(self, partitions: int) -> bool:
        """Whether everything is as desired with this number of partitions."""
        item = get("mfc/microfin", self.namespace)
        status = item.get("status", {})
        ready: dict[str, Any] = next(
            (it for it in status.get("conditions", ()) if it["type"] == "Ready"), {}
        )
        return (
            ready.get("status") == "True"
            and ready["observedGeneration"] == item["metadata"]["generation"]
            and status["partitions"] == dict.fromkeys(("topic", "active", "desired"), partitions)
        )

    async def until_active(self, partitions: int, patience: float = 180) -> float:
        """Wait until accounts are spread over `partitions`, each with its worker."""
        return await until(f"{partitions} partitions", lambda: self.is_active(partitions), patience)

    def scale(self, partitions: int) -> None:
        """Grow, as people do."""
        self.kubectl("scale", "mfc/microfin", f"--replicas={partitions}")

    def upgrade(self, **application: Any) -> None:
        """Upgrade the application with other values."""
        wanted = replace(self.wanted, application={**self.wanted.application, **application})
        install_application(wanted, self.platform, progress())

    def pods(self, selector: str) -> list[str]:
        """Return the names of the pods that a selector finds."""
        printed = self.kubectl("get", "pods", "-l", selector, "-o", "name")
        return [line.removeprefix("pod/") for line in printed.split()]

    async def audit(self) -> None:
        """Run the audit's Job now, for a ledger at rest; it must find nothing."""
        ended, printed = await self.run_audit(
            f"audit-{uuid4().hex[:6]}", "microfin", "audit", "--at-rest"
        )
        assert ended == "Complete", printed
        assert "All invariants hold." in printed, printed

    async def run_audit(self, name: str, *command: str) -> tuple[str, str]:
        """Run a command in the audit's Job; return `Complete` or `Failed`, and what it printed."""
        return await self.run_job("microfin-audit", name, *command)

    async def run_job(self, of: str, name: str, *command: str) -> tuple[str, str]:
        """Run a command in a CronJob's Job, once; return how it ended, and what it printed."""
        template = get(f"cronjob/{of}", self.namespace)["spec"]["jobTemplate"]
        spec = template["spec"]
        spec["template"]["spec"]["containers"][0]["command"] = list(command)
        spec["backoffLimit"] = 0
        apply(
            {
                "apiVersion": "batch/v1",
                "kind": "Job",
                "metadata": {"name": name, "namespace": self.namespace},
                "spec": spec,
            }
        )
        await until(f"the end of {name}", lambda: self._has_ended(name))
        return self._condition(name), self.kubectl("logs", f"job/{name}")

    def _condition(self, job: str) -> str:
        conditions = get(f"job/{job}", self.namespace)["status"].get("conditions", ())
        return next((it["type"] for it in conditions if it["type"] in ("Complete", "Failed")), "")

    def _has_ended(self, job: str) -> bool:
        return bool(self._condition(job))


Install = Callable[[Wanted, Platform, Say], Wanted]
"""Installs a bank, and returns what it has installed."""


def install_bank(wanted: Wanted, platform: Platform, say: Say) -> Wanted:
    """Install operator, data plane and bank as `make deploy` does."""
    began = time.monotonic()
    make_namespaces(wanted)
    install_operator(wanted, platform, say)
    install_data(wanted, platform, say)
    upon_data = time.monotonic()
    install_application(wanted, platform, say)
    now = time.monotonic()
    figure(f"charts to Ready in {now - upon_data:.1f} s, with data {now - began:.1f} s")
    return wanted


@contextlib.asynccontextmanager
async def new_bank(
    shards: int = 1, *, install: Install = install_bank, **data: Any
) -> AsyncIterator[Bank]:
    """Install operator, data plane and bank; remove everything after, the topic too."""
    kubectl("apply", "--server-side", "--force-conflicts", "-f", str(CUSTOM_RESOURCE))
    say = progress()
    kafka = existing_kafka()
    platform = await asyncio.to_thread(inspect_platform, say, kafka)
    mark = uuid4().hex[:6]
    namespaces = [f"microfin-e2e-{mark}"]
    if kafka is not None:
        namespaces.append(kafka.namespace)  # its topics are there
        apply(kafka_resource(kafka, f"microfin-e2e-{mark}"))
    wanted = Wanted(
        namespace=f"microfin-e2e-{mark}",
        operator_namespace=f"microfin-e2e-{mark}-system",
        operator_release=f"e2e-{mark}-operator",
        size="dev",
        tag=TAG,
        shards=shards,
        host=f"{mark}.bank.test",
        topic=f"e2e-{mark}.commands",
        data=data,
        operator={
            "crd": {"install": False},
            "namespaces": namespaces,
        },
    )
    try:
        wanted = await asyncio.to_thread(install, wanted, platform, say)
        yield Bank(wanted, platform)
    finally:
        _remove(wanted, platform)


def _remove(wanted: Wanted, platform: Platform) -> None:
    for release, namespace in (
        ("microfin", wanted.namespace),
        ("microfin-data", wanted.namespace),
        (wanted.operator_release, wanted.operator_namespace),
    ):
        helm("uninstall", release, "--namespace", namespace, "--ignore-not-found")
    place = wanted.namespace if platform.kafka is None else platform.kafka.namespace
    kubectl("-n", place, "delete", "kafkatopic", wanted.topic, "--ignore-not-found", check=False)
    for namespace in (wanted.namespace, wanted.operator_namespace):
        kubectl("delete", "namespace", namespace, "--ignore-not-found", "--timeout=120s")


class Report:
    """What a mover of money has seen."""

    def __init__(self, report: dict[str, Any]) -> None:
        self.settled: int = report["settled"]
        self.failed: dict[str, int] = report["failed"]
        self.refused: dict[str, int] = report["refused"]
        self.wrong: list[str] = report["wrong"]
        self.gaps: dict[str, float] = report["gaps"]
        self.report = report

    @property
    def summary(self) -> str:
        """What a person wants to know, as one line."""
        unanswered = sum(self.failed.values()) + sum(self.refused.values())
        return (
            f"{self.settled} settled, {unanswered} requests failed or refused, "
            f"no partition at rest for longer than {max(self.gaps.values())} s"
        )

    def assert_money_is_right(self) -> None:
        """Nothing was lost, doubled, rejected or left undecided."""
        assert self.wrong == [], self.report
        assert self.settled > 50, self.report

    def assert_nobody_noticed(self) -> None:
        """No request failed or was refused."""
        self.assert_money_is_right()
        assert (self.failed, self.refused) == ({}, {}), self.report


class Mover:
    """A pod that moves money; `report` is there when the block has ended."""

    def __init__(self, client: Client) -> None:
        self.report = Report(
            {
                "settled": 0,
                "failed": {},
                "refused": {},
                "wrong": ["it never ran"],
                "gaps": {},
            }
        )
        self._client = client
        self._name = f"mover-{uuid4().hex[:6]}"

    async def start(self, partitions: int) -> None:
        """Start it and wait until money moves."""
        command = ("python", "-c", _MOVER.read_text(encoding="utf-8"))
        arguments = (self._client.url, str(partitions))
        apply(self._client.pod(self._name, *command, *arguments))
        await until("money moves", lambda: "READY" in self._log())

    async def stop(self) -> None:
        """Let it decide what is under way, compare all balances, and report."""
        self._client.kubectl("exec", self._name, "--", "touch", "/tmp/stop")  # noqa: S108
        await until("the mover's report", self._has_ended, 240)
        printed = self._log()
        line = next((it for it in printed.splitlines() if it.startswith("REPORT ")), None)
        assert line is not None, printed
        self.report = Report(json.loads(line.removeprefix("REPORT ")))
        print(line)
        figure(f"{_current_test()}: {self.report.summary}")

    def remove(self) -> None:
        """Delete its pod: one that went on would move money while the next test audits."""
        pod = ("pod", self._name, "--ignore-not-found", "--grace-period=1")
        self._client.kubectl("delete", *pod)

    def _log(self) -> str:
        return kubectl("-n", self._client.namespace, "logs", self._name, check=False)

    def _has_ended(self) -> bool:
        status = get(f"pod/{self._name}", self._client.namespace)["status"]
        return status["phase"] in ("Succeeded", "Failed")


def _current_test() -> str:
    return os.environ["PYTEST_CURRENT_TEST"].partition("::")[2].rpartition(" (")[0]


@contextlib.asynccontextmanager
async def moving_money(
    bank: Bank, partitions: int, *, before: float = 2.0, client: Client | None = None
) -> AsyncIterator[Mover]:
    """Move money while the block runs; some seconds before and after it, too.

    Without a client, from the bank's namespace, where the network policies let `helm test` through.
    """
    mover = Mover(client or _inside(bank))
    try:
        await mover.start(partitions)
        await asyncio.sleep(before)
        yield mover
        await asyncio.sleep(3)
        await mover.stop()
    finally:
        mover.remove()


def _inside(bank: Bank) -> Client:
    labels = {
        "app.kubernetes.io/name": "microfin",
        "app.kubernetes.io/instance": "microfin",
        "app.kubernetes.io/component": "test",
    }
    return Client(bank.namespace, f"http://microfin-api.{bank.namespace}:80", API_IMAGE, labels)
