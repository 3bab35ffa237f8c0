"""One load run from beginning to end."""

import asyncio
import json
import re
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from microfin_loadtest.backlog import wait_for_rest
from microfin_loadtest.decision_counts import count_decided
from microfin_loadtest.errors import LoadImpossible
from microfin_loadtest.growth import grow_later
from microfin_loadtest.k6 import PROGRAMS, K6Run, find_k6
from microfin_loadtest.ledger import audit_at_rest
from microfin_loadtest.phases import phases_between, scrape
from microfin_loadtest.plot import draw
from microfin_loadtest.processes import Sampler, Usage
from microfin_loadtest.report import usage_figures, whole_report
from microfin_loadtest.scripts import EXPECTED_REJECTIONS, find_script
from microfin_loadtest.subject import form_of, measured_urls, running_platform, worker_urls
from microfin_loadtest.summary import LoadFigures, read_figures
from microfin_loadtest.users import prepare_users
from microfin_loadtest.validity import why_invalid
from microfin_loadtest.write_ahead_log import Written, wal_figures, written
from microfin_local.platform import PROCESSES_FILE

_DURATION = re.compile(r"(\d+)(s|m|h)")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600}
_REST_WITHIN_SECONDS: Final = 300.0


def seconds_of(duration: str) -> int:
    """Return a run's length in seconds. Raises LoadImpossible for an invalid duration."""
    match = _DURATION.fullmatch(duration)
    if match is None or int(match[1]) == 0:
        raise LoadImpossible(f"DURATION is {duration}; write it like 60s, 10m or 1h.")
    return int(match[1]) * _UNITS[match[2]]


@dataclass(frozen=True)
class Request:
    """What to run. `allowed_statuses` are expected in addition to the script's own; `grow_to` is
    the number of partitions to grow to during the run, 0 for no growth. `audit_since`: the audit
    begins where the last one of that kind ended."""

    script: str
    rate: int
    duration: str
    state: Path
    users: int
    allowed_statuses: Set[int]
    grow_to: int
    audit_since: bool = False

    @property
    def seconds(self) -> int:
        """The run's length in seconds. Raises LoadImpossible for an invalid duration."""
        return seconds_of(self.duration)


@dataclass(frozen=True)
class _Measured:
    figures: LoadFigures
    k6_seconds: float
    usage: Usage
    drain_seconds: float | None
    growth: dict[str, Any] | None
    phases: dict[str, Any] | None
    written: Written


async def run(request: Request, say: Callable[[str], None]) -> dict[str, Any]:
    """Make the run and return its report. Raises LoadImpossible if it cannot be made."""
    script, seconds = find_script(request.script), request.seconds
    endpoints = running_platform(request.state)
    program = await asyncio.to_thread(find_k6, PROGRAMS, say)
    platform = form_of(request.state, endpoints)
    users = request.state / "loadtest-users.json"
    hash_cost = {name: platform[name] for name in ("argon2_memory_kib", "argon2_time")}
    await prepare_users(endpoints.api, users, request.users, hash_cost, say)
    decided_before = await count_decided(endpoints.postgres_shards)
    folder = request.state / "loadtest"
    folder.mkdir(exist_ok=True)
    name = f"{script.stem}-{request.rate}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    variables = {
        "API": endpoints.api,
        "RATE": str(request.rate),
        "DURATION": request.duration,
        "USERS": str(users),
    }
    say(f"{request.script}: {request.rate} iterations/s for {request.duration}")
    measured = await _measure(
        request,
        K6Run(program, script, folder / f"{name}.json", variables),
        endpoints.postgres_shards,
        say,
    )
    say("auditing")
    audit = await audit_at_rest(endpoints.postgres_shards, since=request.audit_since)
    decided = await count_decided(endpoints.postgres_shards) - decided_before
    picture = folder / f"{name}.svg"
    title = f"{request.script} at {request.rate} iterations/s, {platform['workers']} workers"
    picture.write_text(draw(title, seconds, measured.figures.slots))
    say(f"plot: {picture}")
    rejections = EXPECTED_REJECTIONS[request.script]
    reasons = why_invalid(
        measured.figures, rejections, request.allowed_statuses, decided, audit
    ) + _unfinished(measured)
    report = whole_report(
        reasons=reasons,
        offered={
            "script": request.script,
            "rate": request.rate,
            "duration_seconds": seconds,
            "users": request.users,
            "platform": platform,
        },
        figures=measured.figures,
        decided=decided,
        drain_seconds=measured.drain_seconds,
        audit=audit,
        usage=usage_figures(measured.usage, measured.k6_seconds, measured.figures.requests),
    )
    report["phases"] = measured.phases
    report["wal"] = wal_figures(measured.written, measured.figures.settled)
    return report if measured.growth is None else {**report, "growth": measured.growth}


async def _measure(
    request: Request, k6: K6Run, shards: Sequence[str], say: Callable[[str], None]
) -> _Measured:
    before = await scrape(measured_urls(request.state))
    written_before = await written(shards)
    sampler = Sampler(request.state / PROCESSES_FILE)
    sampler.start()
    growing = None
    if request.grow_to:
        later = grow_later(request.state, request.grow_to, request.seconds / 3, say)
        growing = asyncio.create_task(later)
    try:
        summary, k6_seconds = await asyncio.to_thread(k6.wait)
        growth = await growing if growing is not None else None
        say("waiting for the backlog")
        rested = await wait_for_rest(lambda: worker_urls(request.state), _REST_WITHIN_SECONDS)
    finally:
        k6.stop()
        usage = sampler.stop()
    phases = phases_between(before, await scrape(measured_urls(request.state)))
    more = (await written(shards)).since(written_before)
    figures = read_figures(summary)
    drain = None if rested is None else round(max(rested - figures.ended, 0), 2)
    return _Measured(figures, k6_seconds, usage, drain, growth, phases, more)


def _unfinished(measured: _Measured) -> list[str]:
    reasons = []
    if measured.drain_seconds is None:
        reasons.append(f"The backlog was not empty after {_REST_WITHIN_SECONDS:g} s.")
    if measured.growth is not None and measured.growth["exit_code"] != 0:
        reasons.append("The growth failed.")
    return reasons


def encode(report: dict[str, Any]) -> str:
    """Return the report as one line."""
    return json.dumps(report)
