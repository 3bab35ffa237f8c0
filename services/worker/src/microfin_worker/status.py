"""What a worker reports about itself."""

from typing import Literal

import msgspec

State = Literal[
    "starting",
    "waiting",
    "claiming",
    "working",
    "disconnected",
    "fenced",
    "retrying",
    "stopped",
]


class Status(msgspec.Struct):
    """The body of `/status`.

    Offsets are of the log. `lag_seconds` is the age of the oldest command that was fetched and is
    not decided, 0 if there is none. `outbox_seconds` is the age of the oldest command that must be
    sent on and that the broker has not acknowledged. `topic_partitions` is how many partitions the
    topic had when the brokers were last asked, 0 before. `unreachable` lists the parts
    that have been silent for long: Kafka, PostgreSQL, Redis. `log_unanswered_seconds` and
    `database_unanswered_seconds` are for how long a request to Kafka or PostgreSQL has not been
    answered. `degraded` lists what makes answers slower and stops nothing.
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
    unreachable: list[str] = []
    log_unanswered_seconds: float = 0.0
    database_unanswered_seconds: float = 0.0
    degraded: list[str] = []

    @property
    def ready(self) -> bool:
        """Whether the partition is claimed and its commands are being decided."""
        return self.state == "working"
