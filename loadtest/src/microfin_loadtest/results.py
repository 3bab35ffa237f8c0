"""The results file, with one report per line, and its table in loadtest/results/diary.md."""

import json
from pathlib import Path
from typing import Any, Final

from microfin_loadtest.markdown import table_lines
from microfin_loadtest.scripts import FOLDER

RESULTS: Final = FOLDER / "results" / "results.jsonl"
PAGE: Final = FOLDER / "results" / "diary.md"
_BEGIN: Final = "<!-- results: made by `python -m microfin_loadtest table` -->"
_END: Final = "<!-- end of results -->"

_HEAD: Final = (
    "date",
    "commit",
    "script",
    "rate",
    "seconds",
    "workers / API",
    "hash",
    "requests/s",
    "settled/s",
    "dropped",
    "deposit p50 / p99",
    "transfer p50 / p99",
    "sign-in p50 / p99",
    "CPU per request",
    "counts",
)


def append_result(report: dict[str, Any], results: Path) -> None:
    """Add a report as the file's last line."""
    results.parent.mkdir(parents=True, exist_ok=True)
    with results.open("a") as file:
        file.write(json.dumps(report, separators=(",", ":")) + "\n")


def read_results(results: Path) -> list[dict[str, Any]]:
    """Return all reports, oldest first."""
    if not results.exists():
        return []
    return [json.loads(line) for line in results.read_text().splitlines() if line]


def table(reports: list[dict[str, Any]]) -> str:
    """Return the reports as a Markdown table."""
    lines = table_lines(_HEAD, [_row(report) for report in reports])
    return "\n".join(lines) if reports else "No run has been recorded yet."


def _row(report: dict[str, Any]) -> list[str]:
    platform = report["platform"]
    cpu = report["cpu_ms_per_request"]
    return [
        report["date"][:10],
        f"`{report['commit']}`",
        f"`{report['script']}`",
        f"{report['rate']}/s",
        f"{report['duration_seconds']:g}",
        f"{platform['workers']} / {platform['api_processes']}{_mode(platform)}",
        f"{platform['argon2_memory_kib']} KiB, t = {platform['argon2_time']}",
        f"{report['requests_per_second']:g}",
        f"{report['settled_per_second']:g}",
        str(report["dropped"]),
        _latency(report, "deposit"),
        _latency(report, "transfer"),
        _latency(report, "signIn"),
        "" if cpu is None else f"{cpu:.2f} ms",
        "yes" if report["valid"] else f"no: {' '.join(report['reasons'])}",
    ]


def _mode(platform: dict[str, Any]) -> str:
    return ", naive" if platform["batch_limit"] == 1 else ""


def _latency(report: dict[str, Any], endpoint: str) -> str:
    figures = report["latency_ms"].get(endpoint)
    return "" if figures is None else f"{figures['p50']:.0f} / {figures['p99']:.0f} ms"


def page_with_table(page: str, reports: list[dict[str, Any]]) -> str:
    """Return the page with a new table; the text around it stays."""
    before, _, rest = page.partition(_BEGIN)
    after = rest.partition(_END)[2]
    return f"{before}{_BEGIN}\n\n{table(reports)}\n\n{_END}{after}"


def renew_page() -> None:
    """Write the table of the committed results into loadtest/results/diary.md."""
    page = PAGE.read_text()
    PAGE.write_text(page_with_table(page, read_results(RESULTS)))
