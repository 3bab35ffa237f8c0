"""The gate of a run that wrote its samples to a Prometheus: what that Prometheus has of the run.

Pure: what to ask it, in PromQL, and what the answers mean. Where the gate is closed, the run does
not count.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from microfin_loadtest.errors import LoadImpossible
from microfin_loadtest.validity import GOOD, REJECTED

_WRITE: Final = "/api/v1/write"
_QUERY: Final = "/api/v1/query"
_TOLERANCE: Final = 0.01
"""How many of the requests Prometheus may lack or have too many, in parts of all of them."""
_MOST_FAILED: Final = 0.0
"""How many of the requests may fail, in parts of those that Prometheus has."""

Found = Mapping[str, Sequence[Mapping[str, Any]]]
"""Series by the question's name; each has `labels` and `value`."""


def query_address(remote_write: str, prometheus: str) -> str:
    """Return where to ask for what k6 writes; empty where it writes nothing.

    `prometheus` is the server's address where it does not follow from `remote_write`. Raises
    LoadImpossible where nobody can tell.
    """
    if not remote_write:
        if prometheus:
            raise LoadImpossible(
                "PROMETHEUS says where to ask for samples, but REMOTE_WRITE does not say where to "
                "write them: set both, or none."
            )
        return ""
    if any("@" in urlsplit(url).netloc for url in (remote_write, prometheus)):
        raise LoadImpossible(
            "There is a password in REMOTE_WRITE or PROMETHEUS, and everybody could read it in the "
            "run's Job and in its report: name an address inside the cluster that needs none."
        )
    if prometheus:
        return prometheus.rstrip("/").removesuffix(_QUERY) + _QUERY
    if not remote_write.endswith(_WRITE):
        raise LoadImpossible(
            f"REMOTE_WRITE is {remote_write}, which does not end in {_WRITE}. Say in PROMETHEUS "
            f"where the samples can be asked for: the address to which {_QUERY} is added."
        )
    return remote_write.removesuffix(_WRITE) + _QUERY


def questions(
    run: str, namespace: str, seconds: float, allowed_statuses: Iterable[int]
) -> dict[str, str]:
    """Return the questions about a run that began so many seconds ago, by name.

    k6 writes the counters of lib.js, `answers_deposit_200` and so on, as
    `k6_answers_deposit_200_total`: there are no labels for status or endpoint.
    """
    window = f"[{math.ceil(seconds) + 1}s]"
    expected = "|".join(map(str, sorted(GOOD | {REJECTED} | set(allowed_statuses))))
    counters = f'testid="{run}",__name__=~"k6_answers_.+_[0-9]+_total"'
    failures = f'{counters},__name__!~"k6_answers_.+_({expected})_total"'
    firing = (
        'ALERTS{alertname=~"Microfin.*",alertstate="firing",severity="critical",'
        f'namespace="{namespace}"}}'
    )
    return {
        "requests": f"sum(last_over_time({{{counters}}}{window}))",
        "failed": f"sum(last_over_time({{{failures}}}{window}))",
        # Of a short run the window may hold no evaluation of the rules.
        "alerts": f"max by (alertname) (max_over_time({firing}{window}) or {firing})",
    }


def answers(found: Found) -> dict[str, Any]:
    """Return the numbers of requests and of those that failed, and the alerts' names."""
    return {
        "requests": _number(found["requests"]),
        "failed": _number(found["failed"]),
        "alerts": sorted(series["labels"]["alertname"] for series in found["alerts"]),
    }


def why_closed(part: Mapping[str, Any], sent: int) -> list[str]:
    """Return why the gate is closed, as sentences; empty where it is open.

    `part` is the report's about Prometheus, `sent` how many requests k6 itself says that it sent.
    """
    if part["answered"] is None:
        return [f"Prometheus could not be asked: {part['impossible']}"]
    reasons = []
    has, failed, alerts = (part["answered"][name] for name in ("requests", "failed", "alerts"))
    if abs(has - sent) > _TOLERANCE * sent:
        reasons.append(f"Prometheus got {has} of {sent} requests.")
    if failed > _MOST_FAILED * has:
        reasons.append(f"Prometheus tells that {failed} of {has} requests failed.")
    if alerts:
        reasons.append(f"Critical alerts fired during the run: {', '.join(alerts)}.")
    return reasons


def gate_command(program: str, address: str, asked: Mapping[str, str]) -> list[str]:
    """Return the command by which a pod asks."""
    return ["python", "-c", program, address, json.dumps(asked)]


def _number(series: Sequence[Mapping[str, Any]]) -> int:
    return round(sum(float(it["value"]) for it in series))
