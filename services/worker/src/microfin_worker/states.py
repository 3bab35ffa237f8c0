"""The worker's states, and the figures that `/status` and the metrics show next to them."""

from collections.abc import Sequence

from microfin.process.silence import Silence
from microfin_worker import metrics
from microfin_worker.outbox import Outbox
from microfin_worker.ports import Place, Ports
from microfin_worker.status import State, Status


class States:
    """Maintains the status of one worker.

    `oldest` is the append time of the oldest record that was fetched and is not committed, None
    while the worker is idle.
    """

    def __init__(self, partition: int, ports: Ports, outbox: Outbox) -> None:
        self._log = ports.log
        self._required = ports.required
        self._useful = ports.useful
        self._clock = ports.clock
        self._outbox = outbox
        self.status = Status(partition)
        self._state: State = self.status.state
        self._reason = self.status.reason
        self.oldest: int | None = None

    def become(self, state: State, reason: str) -> None:
        """Enter `state`; `reason` is what people read next to it.

        `disconnected` is shown in place of `working` while a required part does not answer.
        """
        self._state, self._reason = state, reason
        self._show()

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
        self._show()

    def _show(self) -> None:
        """Show the state, and the parts that do not answer."""
        status = self.status
        silent = [it for it in self._required if it.long]
        status.unreachable = [it.part for it in (*self._required, *self._useful) if it.long]
        status.log_unanswered_seconds = _longest("Kafka", self._required)
        status.database_unanswered_seconds = _longest("PostgreSQL", self._required)
        status.state = "disconnected" if silent and self._state == "working" else self._state
        sentences = [it.sentence for it in silent] if self._state != "stopped" else []
        status.reason = "; ".join(filter(None, [self._reason, *sentences]))
        metrics.show(status)


def _longest(part: str, silences: Sequence[Silence]) -> float:
    return max((it.seconds() for it in silences if it.part == part), default=0.0)
