"""The charts accept the values of the guide to production; needs helm and no cluster."""

import re
import textwrap
from pathlib import Path

import pytest

from e2e.kubernetes_cluster import ROOT
from e2e.rendered_chart import objects, template

GUIDE = ROOT / "docs/guide/production.md"
BLOCK = re.compile(r"^ *```yaml\n *# ([\w-]+\.yaml)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
CHARTS = {
    "operator-values.yaml": "microfin-operator",
    "data-values.yaml": "microfin-data",
    "values.yaml": "microfin",
}
FOR_ALL = "every-pod-values.yaml"


def shown() -> dict[str, str]:
    """Return the files of values that the guide shows, by name."""
    found = BLOCK.findall(GUIDE.read_text(encoding="utf-8"))
    return {name: textwrap.dedent(text) for name, text in found}


@pytest.mark.parametrize("name", CHARTS)
def test_the_chart_accepts_them_over_its_production_values(name: str, tmp_path: Path) -> None:
    chart = ROOT / "charts" / CHARTS[name]
    file = tmp_path / name
    file.write_text(shown()[name], encoding="utf-8")
    files = [it for it in (chart / "values-production.yaml", file) if it.is_file()]
    arguments = [part for it in files for part in ("--values", str(it))]
    assert objects(template("microfin", chart, "microfin", *arguments))


@pytest.mark.parametrize("name", CHARTS)
def test_every_chart_takes_the_values_for_every_pod_as_well(name: str, tmp_path: Path) -> None:
    files = [tmp_path / it for it in (name, FOR_ALL)]
    for file in files:
        file.write_text(shown()[file.name], encoding="utf-8")
    arguments = [part for it in files for part in ("--values", str(it))]
    assert "registry.example.com/mirror/" in template(
        "microfin", ROOT / "charts" / CHARTS[name], "microfin", *arguments
    )


def test_every_block_of_values_is_one_of_these_files() -> None:
    assert shown().keys() == {*CHARTS, FOR_ALL}
    assert GUIDE.read_text(encoding="utf-8").count("```yaml") == len(CHARTS) + 1
