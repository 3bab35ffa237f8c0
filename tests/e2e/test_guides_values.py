"""The guides' values are taken by the charts; needs helm and no cluster."""

import re
import textwrap
from pathlib import Path
from typing import NamedTuple

import pytest
from kubernetes_cluster import ROOT
from rendered_chart import objects, of_kind, template

GUIDES = ("docs/guide/production.md", "docs/guide/disaster-recovery.md")
BLOCK = re.compile(r"^ *```yaml\n *# ([\w-]+\.yaml)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
CHARTS = {
    "operator-values.yaml": "microfin-operator",
    "data-values.yaml": "microfin-data",
    "copy-data-values.yaml": "microfin-data",
    "recovery-data-values.yaml": "microfin-data",
    "values.yaml": "microfin",
}


class Values(NamedTuple):
    """A file of values that a guide shows."""

    guide: str
    name: str
    text: str


def shown() -> list[Values]:
    return [
        Values(guide, name, textwrap.dedent(text))
        for guide in GUIDES
        for name, text in BLOCK.findall((ROOT / guide).read_text(encoding="utf-8"))
    ]


@pytest.mark.parametrize("values", shown(), ids=lambda it: f"{Path(it.guide).stem}: {it.name}")
def test_the_chart_takes_them_over_its_production_values(values: Values, tmp_path: Path) -> None:
    chart = ROOT / "charts" / CHARTS[values.name]
    file = tmp_path / values.name
    file.write_text(values.text, encoding="utf-8")
    production = chart / "values-production.yaml"
    files = [it for it in (production, file) if it.is_file()]
    arguments = [part for it in files for part in ("--values", str(it))]
    items = objects(template("microfin", chart, "microfin", *arguments))
    assert items
    if "bootstrap:" in values.text:
        (shard,) = of_kind(items, "Cluster")
        (way,) = shard["spec"]["bootstrap"].values()
        assert way["source"] == shard["spec"]["externalClusters"][0]["name"]


def test_each_file_of_production_is_shown() -> None:
    assert {"operator-values.yaml", "data-values.yaml", "values.yaml"} <= {
        it.name for it in shown() if it.guide == GUIDES[0]
    }
    assert set(CHARTS) == {it.name for it in shown()}
    fences = "".join((ROOT / guide).read_text(encoding="utf-8") for guide in GUIDES)
    assert len(shown()) == fences.count("```yaml")
