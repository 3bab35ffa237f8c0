"""What `/metrics` shows of this process (listed in `docs/reference/metrics.md`)."""

from functools import cache
from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from microfin.process.phase_seconds import BOUNDS, PhaseSeconds

REQUESTS: Final = Counter(
    "microfin_api_requests", "Requests answered.", ["method", "route", "status"]
)
REQUEST_SECONDS: Final = Histogram(
    "microfin_api_request_seconds",
    "Time from a request to its answer.",
    ["method", "route"],
    buckets=BOUNDS,
)
PHASE_SECONDS: Final = PhaseSeconds(
    "microfin_api_phase_seconds",
    "Time of a settled or rejected command's phases: admit, produce, wait, respond.",
    ("admit", "produce", "wait", "respond"),
)
ACKNOWLEDGE_SECONDS: Final = Histogram(
    "microfin_api_acknowledge_seconds",
    "Time from handing a command to Kafka until all in-sync replicas have it.",
    buckets=BOUNDS,
)
OPERATIONS: Final = Counter(
    "microfin_api_operations", "Operations answered, by their status then.", ["kind", "status"]
)
READY: Final = Gauge(
    "microfin_api_ready", "1 while this process accepts requests (/readyz answers 200), else 0."
)
WAITING: Final = Gauge(
    "microfin_api_waiting", "Commands not acknowledged or not answered yet.", ["partition"]
)
OVERLOADED: Final = Counter(
    "microfin_api_overloaded", "Requests refused because too many were under way in this process."
)
HELD: Final = Gauge("microfin_api_held", "Commands held while a growth is being prepared.")
LEASE_VALID: Final = Gauge(
    "microfin_api_lease_valid", "1 where commands may be sent to the shard now, else 0.", ["shard"]
)
WAITING_FOR_LEASE: Final = Gauge(
    "microfin_api_waiting_for_lease", "Commands that wait for the late lease of their shard."
)
ARCHIVE_READABLE: Final = Gauge(
    "microfin_api_archive_readable",
    "1 where the shard's archive had all that was asked for when it was last asked, else 0.",
    ["shard"],
)
LOOK_UPS: Final = Counter(
    "microfin_api_look_ups", "Waiting operations looked up in PostgreSQL.", ["shard"]
)
SESSIONS_FOUND: Final = Counter(
    "microfin_api_sessions_found",
    "Valid sessions of requests, by where they were found: memory, redis or postgres.",
    ["place"],
)
PASSWORD_HASHES: Final = Gauge(
    "microfin_api_password_hashes", "Password hashes being computed or waiting to be."
)


@cache
def answered(method: str, route: str, status: int) -> tuple[Counter, Histogram]:
    """Return the counter of such answers, and the histogram of their times.

    They are found once: to find them by their labels costs as much as to count.
    """
    return REQUESTS.labels(method, route, status), REQUEST_SECONDS.labels(method, route)


@cache
def operations(kind: str, status: str) -> Counter:
    """Return the counter of operations that are answered with `status`."""
    return OPERATIONS.labels(kind, status)
