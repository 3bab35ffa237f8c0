"""The report of a run: one JSON object."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from microfin_loadtest.processes import Usage
from microfin_loadtest.subject import commit
from microfin_loadtest.summary import LoadFigures

_MEBIBYTE: Final = 2**20


def whole_report(
    *,
    reasons: Sequence[str],
    offered: Mapping[str, Any],
    figures: LoadFigures,
    decided: Mapping[str, int],
    drain_seconds: float | None,
    audit: Mapping[str, Any],
    usage: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the report of a run. `offered` describes the run: script, rate, duration_seconds,
    users, platform."""
    return {
        "valid": not reasons,
        "reasons": list(reasons),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        **offered,
        **load_figures(figures, offered["duration_seconds"]),
        "decided": dict(sorted(decided.items())),
        "drain_seconds": drain_seconds,
        "audit": audit,
        **usage,
    }


def load_figures(figures: LoadFigures, seconds: float) -> dict[str, Any]:
    """Return the clients' figures. Rates are per second of the run's length."""
    return {
        "offered": figures.done + figures.dropped,
        "done": figures.done,
        "dropped": figures.dropped,
        "requests": figures.requests,
        "requests_per_second": round(figures.requests / seconds, 1),
        "answers": {
            endpoint: {str(status): number for status, number in sorted(statuses.items())}
            for endpoint, statuses in sorted(figures.answers.items())
        },
        "accepted": figures.accepted,
        "settled": figures.settled,
        "settled_per_second": round(figures.settled / seconds, 1),
        "rejected": dict(sorted(figures.problems.items())),
        "latency_ms": dict(sorted(figures.latency.items())),
    }


def usage_figures(usage: Usage, k6_seconds: float, requests: int) -> dict[str, Any]:
    """Return CPU and memory by group. CPU per request leaves k6 out."""
    whole = sum(usage.cpu_seconds.values())
    return {
        "cpu_seconds": {
            **{group: round(seconds, 2) for group, seconds in usage.cpu_seconds.items()},
            "k6": round(k6_seconds, 2),
        },
        "cpu_ms_per_request": round(1000 * whole / requests, 3) if requests else None,
        "memory_mib": _mebibytes(usage.memory_bytes),
        "largest_process_mib": _mebibytes(usage.largest_bytes),
    }


def unknown_usage(why: str) -> dict[str, Any]:
    """Return the fields of `usage_figures` without values, and why there are none."""
    fields = ("cpu_seconds", "cpu_ms_per_request", "memory_mib", "largest_process_mib")
    return {**dict.fromkeys(fields), "not_measured": dict.fromkeys(fields, why)}


def _mebibytes(sizes: Mapping[str, int]) -> dict[str, float]:
    return {group: round(size / _MEBIBYTE, 1) for group, size in sizes.items()}
