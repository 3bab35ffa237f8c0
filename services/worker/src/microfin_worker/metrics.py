"""The worker's metrics (`docs/reference/metrics.md`)."""

from collections import Counter as Tally

from prometheus_client import Counter, Gauge, Histogram

from microfin.ledger.records import Decisions
from microfin.process.phase_seconds import PhaseSeconds
from microfin_worker.status import Status

OUTCOMES = Counter(
    "microfin_worker_outcomes_total", "Legs decided.", ["kind", "leg", "status", "reason"]
)
REPEATS = Counter("microfin_worker_repeats_total", "Legs that had been decided before.")
QUARANTINED = Counter("microfin_worker_quarantined_total", "Records set aside.")
BATCHES = Counter("microfin_worker_batches_total", "Batches committed.")
BATCH_SIZE = Histogram(
    "microfin_worker_batch_size",
    "Commands in a batch.",
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
)
COMMIT_SECONDS = Histogram(
    "microfin_worker_commit_seconds",
    "Seconds that it took to write and commit a batch.",
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
)
PHASE_SECONDS = PhaseSeconds(
    "microfin_worker_phase_seconds",
    "Time of a command's phases: queue, apply, commit, notify; produce, if it is sent on.",
    ("queue", "apply", "commit", "notify", "produce"),
)
CLAIMS = Counter("microfin_worker_claims_total", "Claims of the partition.")
FAILURES = Counter("microfin_worker_failures_total", "Batches that were not committed.", ["error"])
NEXT_OFFSET = Gauge("microfin_worker_next_offset", "The next offset to decide.")
LAG_RECORDS = Gauge("microfin_worker_lag_records", "Commands in the log that are not decided.")
LAG_SECONDS = Gauge("microfin_worker_lag_seconds", "Age of the oldest undecided command.")
OUTBOX_SIZE = Gauge("microfin_worker_outbox_size", "Commands not yet acknowledged by the broker.")
OUTBOX_SECONDS = Gauge(
    "microfin_worker_outbox_seconds", "Age of the oldest command not acknowledged by the broker."
)
READY = Gauge("microfin_worker_ready", "1 while the partition is claimed and worked on.")
LOG_UNANSWERED_SECONDS = Gauge(
    "microfin_worker_log_unanswered_seconds",
    "Seconds for which the broker has not reported where the log ends.",
)
EPOCH = Gauge("microfin_worker_epoch", "The epoch of this worker's claim.")
GENERATION = Gauge("microfin_worker_generation", "The routing generation worked under.")


def count(decisions: Decisions, size: int) -> None:
    """Count a committed batch of `size` commands."""
    BATCHES.inc()
    BATCH_SIZE.observe(size)
    kinds = Tally(
        (outcome.kind, outcome.leg, outcome.status, outcome.reason)
        for outcome in decisions.outcomes
    )
    for labels, legs in kinds.items():
        OUTCOMES.labels(*labels).inc(legs)
    repeats = sum(answer.replayed for answer in decisions.answers)
    if repeats:
        REPEATS.inc(repeats)
    if decisions.quarantined:
        QUARANTINED.inc(len(decisions.quarantined))


def show(status: Status) -> None:
    """Set the gauges to the values of `status`."""
    READY.set(1 if status.ready else 0)
    NEXT_OFFSET.set(status.next_offset)
    LAG_RECORDS.set(status.lag_records)
    LAG_SECONDS.set(status.lag_seconds)
    OUTBOX_SIZE.set(status.outbox_size)
    OUTBOX_SECONDS.set(status.outbox_seconds)
    LOG_UNANSWERED_SECONDS.set(status.log_unanswered_seconds)
    EPOCH.set(status.epoch)
    GENERATION.set(status.generation)
