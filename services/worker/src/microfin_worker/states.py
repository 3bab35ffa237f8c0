"""The worker's states, and the figures that `/status` and the metrics show next to them."""

from typing import Final

from microfin_worker import metrics
from microfin_worker.outbox import Outbox
from microfin_worker.ports import Place, Ports
from microfin_worker.status import State, Status

_UNREACHABLE: Final = (
    "Kafka does not report where the log ends: do its brokers run, and is this worker's "
    "certificate valid?"
)


class States:
    """Maintains the status of one worker.

    `oldest` is the append time of the oldest record that was fetched and is not committed, None
    while the worker is idle.
    """

    def __init__(self, partition: int, ports: Ports, outbox: Outbox) -> None:
        self._log = ports.log
        self._log_unanswered = ports.log_unanswered
        self._clock = ports.clock
        self._outbox = outbox
        self.status = Status(partition)
        self.oldest: int | None = None

    def become(self, state: State, reason: str) -> None:
        """Enter `state`; `reason` is what people read next to it."""
        self.status.state = state
        self.status.reason = reason
        metrics.show(self.status)

    def committed(self, next_offset: int, size: int) -> None:
        """Count a committed batch of `size` commands."""
        self.status.next_offset = next_offset
        self.status.batches += 1
        self.status.commands += size

    def measure(self, place: Place | None) -> None:
        """Renew the figures. `place` is None while the partition is not claimed."""
        status = self.status
        if place is not None:
            status.epoch, status.next_offset = place.epoch, place.next_offset
            status.generation = place.routing.generation
            status.partition_count = place.routing.partition_count
        status.end_offset = max(self._log.end(), status.next_offset)
        status.lag_records = status.end_offset - status.next_offset
        age = 0 if self.oldest is None else self._clock.now() - self.oldest
        status.lag_seconds = max(0, age) / 1000
        status.outbox_size = len(self._outbox)
        status.outbox_seconds = self._outbox.oldest_seconds()
        status.log_unanswered_seconds = self._log_unanswered()
        if status.state == "working":
            status.reason = _UNREACHABLE if status.log_unreachable else ""
        metrics.show(status)
