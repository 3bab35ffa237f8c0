"""From k6's summary to the report, the plot and the table."""

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from microfin_loadtest.plot import draw
from microfin_loadtest.processes import Usage
from microfin_loadtest.report import load_figures, usage_figures
from microfin_loadtest.results import (
    PAGE,
    RESULTS,
    append_result,
    page_with_table,
    read_results,
    table,
)
from microfin_loadtest.scripts import EXPECTED_REJECTIONS, FOLDER
from microfin_loadtest.summary import OPERATIONS, Slot
from support.canned import figures

SVG = "{http://www.w3.org/2000/svg}"


def report(**changes: Any) -> dict[str, Any]:
    usage = Usage({"api": 3.6, "worker": 5.4}, {"api": 100 * 2**20}, {"api": 68 * 2**20})
    return {
        "valid": True,
        "reasons": [],
        "date": "2026-11-22T20:47:33+00:00",
        "commit": "227f415",
        "script": "mix.js",
        "rate": 20,
        "duration_seconds": 15,
        "platform": {
            "workers": 4,
            "api_processes": 1,
            "argon2_memory_kib": 1024,
            "argon2_time": 2,
            "batch_limit": 500,
        },
        **load_figures(figures(), 15),
        **usage_figures(usage, 1.5, figures().requests),
        **changes,
    }


def test_what_clients_saw() -> None:
    section = load_figures(figures(dropped_iterations={"count": 7}), 15)
    assert (section["offered"], section["done"], section["dropped"]) == (307, 300, 7)
    assert (section["requests"], section["requests_per_second"]) == (1800, 120.0)
    assert section["answers"]["withdraw"] == {"200": 298, "422": 2}
    # Sign-ins are no operations.
    assert (section["settled"], section["accepted"]) == (600 + 299 + 298 + 300, 1)
    assert section["rejected"] == {"insufficient_funds": 2}
    assert section["latency_ms"]["deposit"] == {
        "p50": 29.65,
        "p95": 84.98,
        "p99": 163.37,
        "max": 238.86,
    }
    assert "showAccount" not in section["latency_ms"]


def test_cpu_per_request_leaves_k6_out() -> None:
    section = report()
    assert section["cpu_ms_per_request"] == 5.0
    assert section["cpu_seconds"] == {"api": 3.6, "worker": 5.4, "k6": 1.5}
    assert section["memory_mib"] == {"api": 100.0}
    assert usage_figures(Usage(), 0.0, 0)["cpu_ms_per_request"] is None


@pytest.mark.parametrize("slots", [figures().slots, [Slot(0, 0.0, 0.0, 0.0)]])
def test_the_plot_is_well_formed(slots: list[Slot]) -> None:
    picture = ElementTree.fromstring(draw("a < b & c", 15, slots))  # noqa: S314 - our own.
    assert picture.tag == f"{SVG}svg"
    lines = picture.findall(f"{SVG}polyline")
    assert len(lines) == 4
    for line in lines:
        points = [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]
        assert len(points) == len(slots)
        assert all(0 <= x <= 760 and 0 <= y <= 420 for x, y in points)


def test_a_slot_without_answers_is_in_the_plot() -> None:
    assert [slot.answers for slot in figures().slots] == [450, 460, 0, 890]


def test_results_are_kept_in_their_order(tmp_path: Path) -> None:
    results = tmp_path / "results" / "results.jsonl"
    assert read_results(results) == []
    for rate in (1, 2):
        append_result(report(rate=rate), results)
    assert [kept["rate"] for kept in read_results(results)] == [1, 2]
    assert read_results(results)[0] == json.loads(json.dumps(report(rate=1)))


def test_the_table_has_a_row_for_each_run() -> None:
    lines = table(
        [report(), report(valid=False, reasons=["7 iterations were dropped."])]
    ).splitlines()
    assert len(lines) == 4
    assert len({line.count("|") for line in lines}) == 1
    assert lines[2].endswith("| 5.00 ms | yes |")
    assert lines[3].endswith("| no: 7 iterations were dropped. |")


def test_the_page_keeps_what_people_wrote() -> None:
    page = PAGE.read_text()
    renewed = page_with_table(page + "Words of people.\n", [report()])
    assert renewed.startswith(page.partition("<!--")[0])
    assert renewed.endswith("Words of people.\n")
    assert page_with_table(renewed, [report()]) == renewed


def test_the_page_is_current() -> None:
    page = PAGE.read_text()
    assert page == page_with_table(page, read_results(RESULTS)), (
        "Renew it: .venv/bin/python -m microfin_loadtest table"
    )


def test_every_script_is_known_and_documented() -> None:
    # compare.js is no script of `make load`: it has a plan instead of users and a rate.
    scripts = {path.name for path in FOLDER.glob("*.js")} - {"lib.js", "compare.js"}
    assert scripts == set(EXPECTED_REJECTIONS)
    page = (FOLDER.parent / "docs" / "guide" / "load-testing.md").read_text()
    for script in scripts:
        assert f"| `{script}` |" in page


def test_the_script_and_the_harness_mean_the_same_operations() -> None:
    listed = re.search(r"OPERATIONS = \[(.*)\]", (FOLDER / "lib.js").read_text())
    assert listed is not None
    assert set(re.findall(r"'(\w+)'", listed[1])) == OPERATIONS
