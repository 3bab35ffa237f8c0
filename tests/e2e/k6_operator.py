"""The k6 operator in the cluster: the one that is there, or one from its Go module."""

import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from e2e.kubernetes_cluster import ROOT, kubectl
from microfin_deploy.commands import exists, helm

_NAMESPACE = "k6-operator-system"  # the run's NetworkPolicy lets it in
_NAME = "k6-operator"
_VALUES = ROOT / "k8s/k6-operator"


@contextlib.asynccontextmanager
async def k6_operator() -> AsyncIterator[None]:
    """Run one while the block runs, by the vendor's chart with our values for one node.

    Skips where there is none and none to be put there: MICROFIN_E2E_K6_OPERATOR names the folder of
    its Go module, in which the chart is; `tests/e2e/on_lab.sh` has made its images.
    """
    if exists("crd/testruns.k6.io"):
        yield
        return
    folder = os.environ.get("MICROFIN_E2E_K6_OPERATOR")
    if folder is None:
        pytest.skip(
            "There is no k6 operator in this cluster, and MICROFIN_E2E_K6_OPERATOR names none."
        )
    try:
        helm(
            *("upgrade", "--install", _NAME, str(Path(folder) / "charts/k6-operator")),
            *("--namespace", _NAMESPACE, "--create-namespace", "--wait", "--timeout", "3m"),
            *("--values", str(_VALUES / "values.yaml")),
            *("--values", str(_VALUES / "values-dev.yaml")),
        )
        yield
    finally:
        helm("uninstall", _NAME, "--namespace", _NAMESPACE, "--ignore-not-found", "--wait")
        kubectl("delete", "namespace", _NAMESPACE, "--ignore-not-found", "--timeout=120s")
        # `make load-k8s` takes them for a sign that somebody acts on TestRuns.
        definitions = ("testruns.k6.io", "privateloadzones.k6.io")
        kubectl("delete", "crd", *definitions, "--ignore-not-found")
