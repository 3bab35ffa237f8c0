"""A kind cluster with everything that microfin needs, from the vendors' own charts."""

from pathlib import Path
from typing import Any, Final

import yaml

from microfin_deploy.commands import ROOT, Say, helm, kubectl, run

CLUSTER: Final = "microfin"
VENDORS: Final = ("strimzi", "cnpg", "ingress-nginx", "k6-operator")
"""Folders of k8s/, in the order in which they are installed."""

# ingress-nginx listens on the node's ports, which kind forwards from this machine.
_NODE: Final[dict[str, Any]] = {
    "kind": "Cluster",
    "apiVersion": "kind.x-k8s.io/v1alpha4",
    "nodes": [
        {
            "role": "control-plane",
            "labels": {"ingress-ready": "true"},
            "extraPortMappings": [
                {"containerPort": 80, "hostPort": 8080, "listenAddress": "127.0.0.1"},
                {"containerPort": 443, "hostPort": 8443, "listenAddress": "127.0.0.1"},
            ],
        }
    ],
}


def make_cluster(say: Say) -> None:
    """Create the cluster if it is missing, and install the vendors' charts. Safe to repeat."""
    if CLUSTER not in run("kind", "get", "clusters").split():
        say(f"making kind cluster {CLUSTER}")
        create = ("kind", "create", "cluster", "--name", CLUSTER, "--config", "-")
        run(*create, stdin=yaml.safe_dump(_NODE))
    kubectl("config", "use-context", f"kind-{CLUSTER}")
    for vendor in VENDORS:
        _install(ROOT / "k8s" / vendor, say)
    say("the cluster is ready: make deploy")


def _install(folder: Path, say: Say) -> None:
    release = yaml.safe_load((folder / "release.yaml").read_text(encoding="utf-8"))
    say(f"installing {release['chart']} {release['version']}")
    values = [argument for file in values_files(folder) for argument in ("--values", str(file))]
    # A chart in an OCI registry has its place in its name.
    repository = ("--repo", release["repository"]) if "repository" in release else ()
    helm(
        *("upgrade", "--install", folder.name, release["chart"]),
        *(*repository, "--version", release["version"]),
        *("--namespace", release["namespace"], "--create-namespace"),
        *(*values, "--wait", "--timeout", "10m"),
    )


def values_files(folder: Path) -> list[Path]:
    """Return a vendor's values files for kind; each overrides those before it."""
    files = (folder / name for name in ("values.yaml", "values-dev.yaml", "values-kind.yaml"))
    return [file for file in files if file.is_file()]
