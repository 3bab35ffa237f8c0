"""What a worker reports about itself."""

from typing import Literal

import msgspec

from microfin.kafka.client import UNREACHABLE_AFTER

State = Literal["starting", "waiting", "claiming", "working", "fenced", "retrying", "stopped"]


class Status(msgspec.Struct):
    """The body of `/status`.

    Offsets are of the log. `lag_seconds` is the age of the oldest command that was fetched and is
    not decided, 0 if there is none. `outbox_seconds` is the age of the oldest command that must be
    sent on and that the broker has not acknowledged. `topic_partitions` is how many partitions the
    topic had when the brokers were last asked, 0 before. `log_unanswered_seconds` is for how long
    the broker has not reported where the log ends. `degraded` lists what makes answers slower and
    stops nothing.
    """

    partition: int
    state: State = "starting"
    reason: str = "connecting to Kafka"
    epoch: int = 0
    generation: int = 0
    partition_count: int = 0
    topic_partitions: int = 0
    next_offset: int = 0
    end_offset: int = 0
    lag_records: int = 0
    lag_seconds: float = 0.0
    outbox_size: int = 0
    outbox_seconds: float = 0.0
    batches: int = 0
    commands: int = 0
    log_unanswered_seconds: float = 0.0
    degraded: list[str] = []

    @property
    def ready(self) -> bool:
        """Whether the partition is claimed and its commands are being decided."""
        return self.state == "working" and not self.log_unreachable

    @property
    def log_unreachable(self) -> bool:
        """Whether it is unknown what waits in the log."""
        return self.log_unanswered_seconds > UNREACHABLE_AFTER
