"""What the chart microfin-data renders; needs helm and no cluster."""

import functools
from pathlib import Path
from typing import Any, Final

from e2e.kubernetes_cluster import ROOT
from e2e.rendered_chart import Item, objects, of_kind, template

CHART: Final = ROOT / "charts/microfin-data"
DEV: Final = CHART / "values-dev.yaml"
PRODUCTION: Final = CHART / "values-production.yaml"


@functools.cache
def rendered(
    *values: str,
    strings: tuple[str, ...] = (),
    files: tuple[Path, ...] = (),
    namespace: str = "bank",
) -> str:
    """Return what `helm template` prints. Raises `ValueError` where it refuses the values."""
    arguments = [part for file in files for part in ("--values", str(file))]
    arguments += [part for value in values for part in ("--set", value)]
    arguments += [part for value in strings for part in ("--set-string", value)]
    return template("data", CHART, namespace, *arguments)


def render(*values: str, **more: Any) -> list[Item]:
    """Return the objects for these values."""
    return objects(rendered(*values, **more))


def named(items: list[Item], kind: str, name: str) -> Item:
    """Return one object."""
    (item,) = (it for it in of_kind(items, kind) if it["metadata"]["name"] == name)
    return item


def names(items: list[Item], kind: str) -> list[str]:
    """Return the names of the objects of a kind."""
    return sorted(item["metadata"]["name"] for item in of_kind(items, kind))
