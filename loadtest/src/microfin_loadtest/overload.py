"""Overload: three times the rate that the platform can serve, and lower rates before and after.

k6 needs as much CPU for a request as the platform for a refusal, so on one machine k6 slows down
before the platform is overloaded. wrk with `overload.lua` does not.
"""

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from microfin_loadtest.backlog import wait_for_rest
from microfin_loadtest.decision_counts import count_decided
from microfin_loadtest.errors import LoadImpossible
from microfin_loadtest.ledger import audit_at_rest
from microfin_loadtest.scripts import FOLDER
from microfin_loadtest.subject import commit, form_of, running_platform, worker_urls
from microfin_loadtest.users import prepare_users, sign_in_all
from microfin_local.files import PRIVATE, write_atomically

_USERS: Final = 200
_CONNECTIONS: Final = 3000
_AFTER_SECONDS: Final = 5
_REST_WITHIN_SECONDS: Final = 300.0


@dataclass(frozen=True)
class Overload:
    """What to run: `peak` is the highest rate the platform should serve, `rate` the overload."""

    peak: int
    rate: int
    seconds: int
    state: Path


async def overload(request: Overload, say: Callable[[str], None]) -> dict[str, Any]:
    """Offer the peak, then the overload, then a third of the peak; audit; return the report.

    Raises LoadImpossible if the run cannot be made.
    """
    wrk = shutil.which("wrk")
    if wrk is None:
        raise LoadImpossible("wrk is not installed. Install it (Debian: apt-get install wrk).")
    endpoints = running_platform(request.state)
    platform = form_of(request.state, endpoints)
    users = request.state / "loadtest-users.json"
    cost = {name: platform[name] for name in ("argon2_memory_kib", "argon2_time")}
    await prepare_users(endpoints.api, users, _USERS, cost, say)
    sessions = request.state / "loadtest-sessions"
    signed_in = await sign_in_all(endpoints.api, users)
    lines = "".join(f"{session} {account}\n" for session, account in signed_in)
    write_atomically(sessions, lines, PRIVATE)
    before = await count_decided(endpoints.postgres_shards)

    async def offer(rate: int, seconds: int) -> dict[str, Any]:
        say(f"offering {rate} requests/s for {seconds} s")
        return await asyncio.to_thread(_offer, wrk, endpoints.api, sessions, rate, seconds)

    phases = {
        "peak": await offer(request.peak, request.seconds),
        "overload": await offer(request.rate, request.seconds),
        # At once, so that the overload's after-effects are in these figures.
        "after": await offer(max(request.peak // 3, 1), _AFTER_SECONDS),
    }
    say("waiting for the backlog, and auditing")
    rested = await wait_for_rest(lambda: worker_urls(request.state), _REST_WITHIN_SECONDS)
    audit = await audit_at_rest(endpoints.postgres_shards)
    decided = (await count_decided(endpoints.postgres_shards) - before).total()
    reasons = why_invalid(phases, decided, audit, rested=rested is not None)
    return {
        "valid": not reasons,
        "reasons": reasons,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "platform": platform,
        **phases,
        "settled_against_peak": round(
            phases["overload"]["settled_per_second"]
            / max(phases["peak"]["settled_per_second"], 0.1),
            3,
        ),
        "audit": audit,
    }


def _offer(wrk: str, api: str, sessions: Path, rate: int, seconds: int) -> dict[str, Any]:
    done = subprocess.run(
        [
            *(wrk, "--threads", "1", "--connections", str(_CONNECTIONS), "--timeout", "30s"),
            *("--duration", f"{seconds}s", "--script", str(FOLDER / "overload.lua"), api),
        ],
        env={**os.environ, "RATE": str(rate), "SESSIONS": str(sessions)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise LoadImpossible(f"wrk failed (exit code {done.returncode}): {done.stderr[-500:]}")
    return phase_figures(json.loads(done.stdout.splitlines()[-1]), rate, seconds)


def phase_figures(printed: Mapping[str, Any], rate: int, seconds: int) -> dict[str, Any]:
    """Return the figures of one phase from what overload.lua has printed; latencies in ms."""
    settled = {int(after): number for after, number in printed["settled_by_ms"].items()}
    total = sum(settled.values())
    return {
        "rate": rate,
        "seconds": seconds,
        "answers": dict(sorted(printed["answers"].items())),
        "dropped": printed["dropped"],
        "unanswered": printed["unanswered"],
        "without_retry_after": printed["without_retry_after"],
        "settled_per_second": round(total / seconds, 1),
        "settled_ms": {
            name: _percentile(settled, total * share)
            for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("max", 1.0))
        },
    }


def _percentile(counts: Mapping[int, int], wanted: float) -> int | None:
    seen = 0
    for after, number in sorted(counts.items()):
        seen += number
        if seen >= wanted:
            return after
    return None


def why_invalid(
    phases: Mapping[str, Any], decided: int, audit: Mapping[str, Any], *, rested: bool
) -> list[str]:
    """Return why the run does not count, as sentences; empty if it counts."""
    reasons = []
    settled = 0
    for name, phase in phases.items():
        settled += phase["answers"].get("200", 0)
        expected = {"200", "503"} if name == "overload" else {"200"}
        if unexpected := sorted(set(phase["answers"]) - expected):
            reasons.append(f"{name}: answers {', '.join(unexpected)}.")
        if phase["unanswered"]:
            reasons.append(f"{name}: {phase['unanswered']} requests got no answer.")
        if phase["without_retry_after"]:
            reasons.append(f"{name}: refusals came without Retry-After.")
        if name != "overload" and phase["dropped"]:
            reasons.append(f"{name}: {phase['dropped']} requests were dropped.")
    if decided < settled:
        reasons.append(f"{settled} were answered as settled, the databases hold {decided}.")
    if not rested:
        reasons.append(f"The backlog was not empty after {_REST_WITHIN_SECONDS:g} s.")
    if not audit["ok"]:
        reasons.append("The audit found something.")
    return reasons
