"""Two banks of the release before in one cluster, with one operator and one Kafka.

Each belongs to a person with a Helm of their own, 3 or 4, who installs as the guide of then says.
The release before had no way to copy Kafka's Secrets from another namespace, so they are copied by
hand, and stay so.
"""

import asyncio
import contextlib
import os
import re
import shutil
import subprocess
import threading
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import yaml

from e2e.helms import HELM3, HELM4
from e2e.kafka_user import make_user, remove_user, write_secret
from e2e.kubernetes_bank import Bank, new_bank
from e2e.kubernetes_cluster import ROOT, get, kubectl
from e2e.pasted_guide import paste
from microfin_deploy.commands import Say
from microfin_deploy.platform import ExistingKafka, Platform
from microfin_deploy.releases import (
    Wanted,
    application_values,
    data_values,
    make_namespaces,
    merged,
    operator_values,
)
from source.shell_blocks import ShellBlock

_ALLOWED: Final = "microfin.io/allow-namespaces"
_DEFINITION: Final = "microfinclusters.microfin.io"
_SECRETS: Final = (
    "microfin-cluster-ca-cert",
    "microfin-worker",
    "microfin-api",
    "microfin-audit",
    "microfin-administrator",
    "microfin-trim",
)
"""What the chart microfin needs of Kafka. One user is all of them here."""


@dataclass
class Owner:
    """Who runs one of the banks: with a Helm, the charts of then, a checkout of now, and values."""

    helm: str
    before: Path
    tag: str
    folder: Path
    operator: "SharedOperator"
    bank: Bank = field(init=False)

    def install(self, wanted: Wanted, platform: Platform, say: Say) -> Wanted:
        """Install the release before, next to the other owner's."""
        wanted = self.operator.shared_by(wanted)
        make_namespaces(wanted)
        self._prepare_checkout()
        then = replace(wanted, tag=self.tag)
        say(f"{wanted.namespace}: data of the release before, by {self.helm}")
        data = merged(data_values(then, platform), then.data)
        self._write("data-values", _without_copies(data))
        self._install("microfin-data", wanted.namespace, self.before / "microfin-data")
        self._wait_for_data(wanted)
        self._copy_secrets(wanted, platform)
        self.operator.admit(self, then, platform)
        say(f"{wanted.namespace}: the application of the release before")
        self._write("values", _without_copies(application_values(then, platform)))
        self._install("microfin", wanted.namespace, self.before / "microfin")
        ready = ("wait", "--for=condition=Ready", "mfc/microfin", "--timeout=180s")
        kubectl("-n", wanted.namespace, *ready)
        # From now on the values are those of the present release.
        self._write("values", _without_copies(application_values(wanted, platform)))
        self._write("operator-values", self.operator.values(wanted, platform))
        return wanted

    def operator_leaves(self, other: "Owner") -> None:
        """Write the operator's values without the namespace of a bank that is gone."""
        values = self.operator.values_without(other.bank, self.bank)
        self._write("operator-values", values)

    def install_operator(self, values: dict[str, Any], wanted: Wanted) -> None:
        """Install or upgrade the operator of the release before."""
        self._write("operator-values", values)
        chart = self.before / "microfin-operator"
        self._install(wanted.operator_release, wanted.operator_namespace, chart)
        selector = ("-l", "app.kubernetes.io/name=microfin-operator", "--timeout=120s")
        available = ("wait", "--for=condition=Available", "deployment", *selector)
        kubectl("-n", wanted.operator_namespace, *available)

    def paste(self, commands: str) -> None:
        """Paste commands of the guide, with this bank's names and size instead of the guide's."""
        wanted = self.bank.wanted
        for guides, ours in (
            (r"\bupgrade microfin-operator\b", f"upgrade {wanted.operator_release}"),
            (r"-n microfin-system\b", f"-n {wanted.operator_namespace}"),
            (r"-n microfin(?![-\w])", f"-n {wanted.namespace}"),
            (r"\bvalues-production\b", f"values-{wanted.size}"),
        ):
            commands = re.sub(guides, ours, commands)
        path = {"PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}"}
        block = ShellBlock(line=1, mark="", commands=commands, printed=())
        code, printed = paste([block], path, self.folder, self.folder / "checkout")
        print(printed)
        assert code == 0, f"a command of the guide failed (exit code {code}):\n{printed}"

    def _copy_secrets(self, wanted: Wanted, platform: Platform) -> None:
        if platform.kafka is not None:
            files = make_user(wanted.namespace, wanted.topic)
            for secret in _SECRETS:
                write_secret(wanted.namespace, secret, files)

    def _prepare_checkout(self) -> None:
        for name in ("checkout", "bin"):
            (self.folder / name).mkdir(parents=True)
        (self.folder / "checkout/charts").symlink_to(ROOT / "charts")
        (self.folder / "bin/helm").symlink_to(str(shutil.which(self.helm)))

    def _write(self, name: str, values: dict[str, Any]) -> None:
        file = self.folder / f"checkout/{name}.yaml"
        file.write_text(yaml.safe_dump(values), encoding="utf-8")

    def _install(self, release: str, namespace: str, chart: Path) -> None:
        own = {"microfin": "values", "microfin-data": "data-values"}.get(release, "operator-values")
        files = (chart / "values-dev.yaml", self.folder / f"checkout/{own}.yaml")
        values = [part for it in files if it.exists() for part in ("--values", str(it))]
        place = ("upgrade", "--install", release, str(chart), "--namespace", namespace)
        command = [self.helm, *place, *values, "--timeout", "10m"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def _wait_for_data(self, wanted: Wanted) -> None:
        place = ("-n", wanted.namespace)
        shard = "clusters.postgresql.cnpg.io/microfin-postgres-0"
        kubectl(*place, "wait", "--for=condition=Ready", shard, "--timeout=300s")
        for what in ("deployment/microfin-pooler-0", "statefulset/microfin-redis"):
            kubectl(*place, "wait", "--for=create", what, "--timeout=120s")
            kubectl(*place, "rollout", "status", what, "--timeout=180s")


class SharedOperator:
    """The one operator: it serves the bank that is installed first, later the other one, too."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._home: Wanted | None = None
        self._served: set[str] = set()

    def shared_by(self, wanted: Wanted) -> Wanted:
        """Return what is wanted, with the operator where the first bank has it."""
        with self._lock:
            home = self._home = self._home or wanted
        place = home.operator_namespace
        return replace(wanted, operator_namespace=place, operator_release=home.operator_release)

    def admit(self, owner: Owner, wanted: Wanted, platform: Platform) -> None:
        """Let the operator serve one more namespace, and the Kafka have its topic."""
        with self._lock:
            if not self._served:
                _install_definition(owner.before, wanted)
            self._served.add(wanted.namespace)
            owner.install_operator(self.values(wanted, platform), wanted)
            if platform.kafka is not None:
                _allow(platform.kafka, self._served)

    def values_without(self, gone: Bank, left: Bank) -> dict[str, Any]:
        """Return the chart's values after a bank has gone."""
        self._served.discard(gone.namespace)
        return self.values(left.wanted, left.platform)

    def values(self, wanted: Wanted, platform: Platform) -> dict[str, Any]:
        """Return the chart's values."""
        return operator_values(wanted, platform, self._served)


def _without_copies(values: dict[str, Any]) -> dict[str, Any]:
    """Return values that the release before knows, too."""
    known = {name: it for name, it in values.items() if name != "kafkaSecrets"}
    kafka = {name: it for name, it in known.get("kafka", {}).items() if name != "existing"}
    return {**known, "kafka": kafka}


def _allow(kafka: ExistingKafka, namespaces: set[str]) -> None:
    """Let banks in more namespaces have their topics in a Kafka."""
    found = get(f"kafka/{kafka.name}", kafka.namespace)["metadata"].get("annotations", {})
    allowed = {*found.get(_ALLOWED, "").split(","), *namespaces} - {""}
    annotation = f"{_ALLOWED}={','.join(sorted(allowed))}"
    kubectl("-n", kafka.namespace, "annotate", f"kafka/{kafka.name}", annotation, "--overwrite")


def _install_definition(before: Path, wanted: Wanted) -> None:
    """Put the definition of then into the place of the one that other tests have applied, as if it
    had come with the release."""
    file = before / "microfin-operator/files/microfinclusters.yaml"
    definition = yaml.safe_load(file.read_text(encoding="utf-8"))
    definition["metadata"] |= {
        "labels": {"app.kubernetes.io/managed-by": "Helm"},
        "annotations": {
            "helm.sh/resource-policy": "keep",
            "meta.helm.sh/release-name": wanted.operator_release,
            "meta.helm.sh/release-namespace": wanted.operator_namespace,
        },
    }
    kubectl("replace", "-f", "-", stdin=yaml.safe_dump(definition))


@contextlib.asynccontextmanager
async def two_banks(before: Path, tag: str, folder: Path) -> AsyncIterator[tuple[Owner, Owner]]:
    """Install both banks at the same time, by Helm 3 and by Helm 4; remove them after."""
    operator = SharedOperator()
    owners = tuple(
        Owner(helm, before, tag, folder / name, operator)
        for name, helm in (("three", HELM3), ("four", HELM4))
    )
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(_remove_users, owners)
        made = (stack.enter_async_context(new_bank(install=it.install)) for it in owners)
        for owner, bank in zip(owners, await asyncio.gather(*made), strict=True):
            owner.bank = bank
        three, four = owners
        yield three, four


def _remove_users(owners: Iterable[Owner]) -> None:
    for owner in owners:
        if hasattr(owner, "bank") and owner.bank.platform.kafka is not None:
            remove_user(owner.bank.namespace)
