"""The phases of the answers' time: the platform's phase histograms over a run.

The phases of API and workers must add up to the time of the answers. The API's `wait` is left out,
because the workers' phases explain it. The sum is right for runs in which every command was
answered with its outcome.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Final

import httpx
from prometheus_client.parser import text_string_to_metric_families

PHASES: Final = ("admit", "produce", "queue", "apply", "commit", "notify", "respond")
"""The phases in order; a command that a worker sends on repeats `produce` to `notify`."""

_COMMANDS: Final = frozenset(
    {
        ("POST", "/api/accounts"),
        ("POST", "/api/accountGeneration"),
        ("GET", "/api/accountGeneration"),
        ("POST", "/api/deposit"),
        ("POST", "/api/withdraw"),
        ("POST", "/api/transfer"),
    }
)
_ANSWERS: Final = "microfin_api_request_seconds"
_COMPONENTS: Final = {
    "microfin_api_phase_seconds": "api",
    "microfin_worker_phase_seconds": "worker",
}

Totals = defaultdict[str, float]
"""Sums and counts of one process's histograms, such as `worker_queue_sum`."""

Scrape = Mapping[str, Totals]
"""Totals by process: its URL or its pod."""


def read_totals(text: str) -> Totals:
    """Return the phases and the answers to commands from one process's `/metrics`."""
    totals: Totals = defaultdict(float)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            ending = sample.name.removeprefix(family.name)
            if ending not in ("_sum", "_count"):
                continue
            labels = sample.labels
            if family.name in _COMPONENTS:
                totals[f"{_COMPONENTS[family.name]}_{labels['phase']}{ending}"] += sample.value
            elif family.name == _ANSWERS and (labels["method"], labels["route"]) in _COMMANDS:
                totals[f"answers{ending}"] += sample.value
    return totals


async def scrape(urls: Iterable[str]) -> Scrape | None:
    """Return the totals of the processes at `urls`; None if one does not answer."""
    places = list(urls)
    async with httpx.AsyncClient(timeout=5) as client:
        try:
            answers = await asyncio.gather(*(client.get(f"{url}/metrics") for url in places))
        except httpx.HTTPError:
            return None
    return {url: read_totals(answer.text) for url, answer in zip(places, answers, strict=True)}


def phases_between(before: Scrape | None, after: Scrape | None) -> dict[str, Any] | None:
    """Return the phases between two scrapes, in milliseconds for an answered command.

    None if there is nothing to report. `ratio` is the sum of the phases divided by the time of the
    answers; `legs` are the commands that workers decided for each command that was answered.
    """
    if before is None or after is None:
        return None
    totals = _difference(before, after)
    answered, answers = totals["api_admit_count"], totals["answers_count"]
    if not answered or not answers:
        return None
    phases = {
        phase: (totals[f"api_{phase}_sum"] + totals[f"worker_{phase}_sum"]) / answered
        for phase in PHASES
    }
    answer, whole = totals["answers_sum"] / answers, sum(phases.values())
    return {
        "answers": int(answers),
        "answered_with_outcome": int(answered),
        "legs": round(totals["worker_commit_count"] / answered, 3),
        "answer_ms": _milliseconds(answer),
        "phases_ms": {phase: _milliseconds(seconds) for phase, seconds in phases.items()},
        "sum_ms": _milliseconds(whole),
        "ratio": round(whole / answer, 4),
        "wait_ms": _milliseconds(totals["api_wait_sum"] / answered),
    }


def _difference(before: Scrape, after: Scrape) -> Totals:
    """Return the increase of each total. A process that started meanwhile counts from its start."""
    added: Totals = defaultdict(float)
    for process, totals in after.items():
        earlier = before.get(process, defaultdict(float))
        is_the_same = all(totals[name] >= value for name, value in earlier.items())
        for name, value in totals.items():
            added[name] += value - earlier[name] if is_the_same else value
    return added


def _milliseconds(seconds: float) -> float:
    return round(1000 * seconds, 3)
