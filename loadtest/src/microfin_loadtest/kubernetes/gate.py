"""The gate of a run that wrote its samples to a Prometheus: checks what Prometheus has of the run.

Pure: it makes the questions, in PromQL, and judges the answers. If the gate is closed, the run does
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
"""The share of all requests that Prometheus may lack or have too many."""
_MOST_FAILED: Final = 0.0
"""The share of the requests in Prometheus that may fail."""

Found = Mapping[str, Sequence[Mapping[str, Any]]]
"""Series by the question's name; each has `labels` and `value`."""


def query_address(remote_write: str, prometheus: str) -> str:
    """Return the address for queries about k6's samples; empty if k6 writes none.

    `prometheus` is the server's address if it does not follow from `remote_write`. Raises
    LoadImpossible if the address is unknown.
    """
    if not remote_write:
        if prometheus:
            raise LoadImpossible(
                "PROMETHEUS, the address for queries about samples, is set, but REMOTE_WRITE, the "
                "address for writing them, is not: set both, or none."
            )
        return ""
    if any("@" in urlsplit(url).netloc for url in (remote_write, prometheus)):
        raise LoadImpossible(
            "There is a password in REMOTE_WRITE or PROMETHEUS, and everybody could read it in the "
            "run's Job and in its report: use an address inside the cluster that needs none."
        )
    if prometheus:
        return prometheus.rstrip("/").removesuffix(_QUERY) + _QUERY
    if not remote_write.endswith(_WRITE):
        raise LoadImpossible(
            f"REMOTE_WRITE is {remote_write}, which does not end in {_WRITE}. Set PROMETHEUS to "
            f"the address for queries, without {_QUERY}."
        )
    return remote_write.removesuffix(_WRITE) + _QUERY


def questions(
    run: str, namespace: str, seconds: float, allowed_statuses: Iterable[int]
) -> dict[str, str]:
    """Return the questions, by name, about a run that began `seconds` ago.

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
        # In a short run's window the rules may not have been evaluated.
        "alerts": f"max by (alertname) (max_over_time({firing}{window}) or {firing})",
    }


def answers(found: Found) -> dict[str, Any]:
    """Return the number of requests, the number of failed ones, and the alerts' names."""
    return {
        "requests": _number(found["requests"]),
        "failed": _number(found["failed"]),
        "alerts": sorted(series["labels"]["alertname"] for series in found["alerts"]),
    }


def why_closed(answer: Mapping[str, Any], sent: int) -> list[str]:
    """Return why the gate is closed, as sentences; empty if it is open.

    `answer` is the report's section about Prometheus, `sent` k6's own number of requests.
    """
    if answer["answered"] is None:
        return [f"Prometheus could not be asked: {answer['impossible']}"]
    reasons = []
    has, failed, alerts = (answer["answered"][name] for name in ("requests", "failed", "alerts"))
    if abs(has - sent) > _TOLERANCE * sent:
        reasons.append(f"Prometheus got {has} of {sent} requests.")
    if failed > _MOST_FAILED * has:
        reasons.append(f"Prometheus reports that {failed} of {has} requests failed.")
    if alerts:
        reasons.append(f"Critical alerts fired during the run: {', '.join(alerts)}.")
    return reasons


def gate_command(program: str, address: str, asked: Mapping[str, str]) -> list[str]:
    """Return the command by which a pod asks the questions."""
    return ["python", "-c", program, address, json.dumps(asked)]


def _number(series: Sequence[Mapping[str, Any]]) -> int:
    return round(sum(float(it["value"]) for it in series))
