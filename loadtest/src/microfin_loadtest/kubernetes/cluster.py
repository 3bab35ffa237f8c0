"""A load run's access to the bank's namespace in the cluster of KUBECONFIG."""

import contextlib
import json
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from microfin_deploy.commands import DeployError, apply, exists, kubectl
from microfin_loadtest.errors import LoadImpossible
from microfin_loadtest.kubernetes.objects import RUN_LABEL, KubernetesObject, bank_labels
from microfin_loadtest.phases import Scrape, read_totals

_FORWARDED: Final = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+) ->")
_ASK_ITSELF: Final = (
    "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=2).read().decode())"
)
"""Runs in the pod itself: only the operator, Prometheus and clients may reach its port."""
_PORTS: Final = {"api": 8080, "worker": 8081}


class Namespace:
    """The namespace; `release` is the bank's Helm release, after which all objects are named."""

    def __init__(self, name: str, release: str) -> None:
        self.name = name
        self.release = release

    def get(self, what: str) -> dict[str, Any]:
        """Return an object. Raises LoadImpossible if it does not exist."""
        try:
            found: dict[str, Any] = json.loads(self._run("get", what, "-o", "json"))
        except DeployError as error:
            raise LoadImpossible(
                f"There is no {what} in namespace {self.name}. Install the bank first, with "
                f"`make deploy`.\n{error}"
            ) from error
        return found

    def context(self) -> str:
        """Return the name of the cluster."""
        return kubectl("config", "current-context").strip()

    def cores(self) -> int:
        """Return the cores of all nodes."""
        nodes = json.loads(kubectl("get", "nodes", "-o", "json"))["items"]
        return sum(int(node["status"]["capacity"]["cpu"]) for node in nodes)

    def brokers(self) -> int | None:
        """Return how many Kafka brokers Strimzi runs here, None if it runs none."""
        if not exists("-n", self.name, "kafkanodepools.kafka.strimzi.io"):
            return None
        pools = json.loads(self._run("get", "kafkanodepools.kafka.strimzi.io", "-o", "json"))
        specs = [it["spec"] for it in pools["items"]]
        return sum(int(it["replicas"]) for it in specs if "broker" in it["roles"])

    def has_k6_operator(self) -> bool:
        """Whether the cluster has the k6 operator, which runs TestRuns."""
        return exists("crd", "testruns.k6.io")

    def apply(self, *items: KubernetesObject) -> None:
        """Create or update the objects."""
        apply(*items)

    def log(self, selector: str) -> str:
        """Return the whole log of the pods that a selector finds."""
        return self._run("logs", "-l", selector, "--tail=-1")

    def worker_states(self) -> list[dict[str, Any]]:
        """Return each worker's status; an empty list if one does not answer."""
        count = self.get(f"mfc/{self.release}")["status"]["partitions"]["active"]
        try:
            return [
                json.loads(self._ask(f"{self.release}-worker-{number}", "worker", "status"))
                for number in range(count)
            ]
        except (DeployError, json.JSONDecodeError):
            return []

    def scrape(self) -> Scrape | None:
        """Return the totals of all API and worker pods, None if one does not answer.

        A pod that was replaced counts as another one, even if it has the same name.
        """
        try:
            return {
                f"{name} {uid}": read_totals(self._ask(name, component, "metrics"))
                for component in _PORTS
                for name, uid in self._pods(component)
            }
        except (DeployError, ValueError):
            return None

    def _pods(self, component: str) -> list[tuple[str, str]]:
        """Return name and uid of a component's pods that run and are not being deleted."""
        labels = ",".join(
            f"{name}={value}" for name, value in bank_labels(self.release, component).items()
        )
        running = "--field-selector=status.phase=Running"
        found = json.loads(self._run("get", "pods", "-l", labels, running, "-o", "json"))["items"]
        metadata = [it["metadata"] for it in found]
        return [(it["name"], it["uid"]) for it in metadata if "deletionTimestamp" not in it]

    def _ask(self, pod: str, component: str, page: str) -> str:
        url = f"http://127.0.0.1:{_PORTS[component]}/{page}"
        return self._run("exec", pod, "--", "python", "-c", _ASK_ITSELF, url)

    def delete_run(self, name: str, *, k6_operator: bool) -> None:
        """Delete all objects of a run."""
        kinds = ["jobs", "configmaps", "secrets", "networkpolicies"]
        if k6_operator:
            kinds.insert(0, "testruns.k6.io")
        self._run("delete", ",".join(kinds), "-l", f"{RUN_LABEL}={name}", "--wait=false")

    @contextlib.contextmanager
    def api(self, log: Path) -> Iterator[str]:
        """Yield the API's address on this machine, which is valid inside the block."""
        command = ("kubectl", "-n", self.name, "port-forward", "--address", "127.0.0.1",
                   f"svc/{self.release}-api", ":80")  # fmt: skip
        with log.open("w", encoding="utf-8") as errors:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        try:
            match = _FORWARDED.search(process.stdout.readline() if process.stdout else "")
            if match is None:
                raise LoadImpossible(f"kubectl could not reach the API's Service; see {log}.")
            yield f"http://127.0.0.1:{match[1]}"
        finally:
            process.terminate()
            process.wait()

    def _run(self, *arguments: str) -> str:
        return kubectl("-n", self.name, *arguments)


def ended(item: KubernetesObject) -> str:
    """Return how a Job or TestRun ended: `complete`, `failed`, or nothing while it runs."""
    status = item.get("status", {})
    stage = status.get("stage", "")
    if stage in ("finished", "error"):
        return "complete" if stage == "finished" else "failed"
    conditions: Sequence[dict[str, str]] = status.get("conditions") or ()
    types = {it["type"] for it in conditions if it["status"] == "True"}
    return "complete" if "Complete" in types else "failed" if "Failed" in types else ""
