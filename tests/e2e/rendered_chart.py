"""What `helm template` makes of a chart; needs helm and no cluster."""

import subprocess
from pathlib import Path
from typing import Any

import yaml

Item = dict[str, Any]


def template(release: str, chart: Path, namespace: str, *arguments: str) -> str:
    """Return what `helm template` prints. Raises `ValueError` where it refuses the values."""
    done = subprocess.run(
        ["helm", "template", release, str(chart), "--namespace", namespace, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ValueError(done.stderr)
    return done.stdout


def objects(printed: str) -> list[Item]:
    """Return the objects that were printed."""
    return [item for item in yaml.safe_load_all(printed) if item]


def of_kind(items: list[Item], kind: str) -> list[Item]:
    """Return the objects of a kind."""
    return [item for item in items if item["kind"] == kind]
