"""What one schedule is to be: its size, its clients, and the faults that befall it.

A plan is drawn from a seed and is data, so that a failing one can be made smaller and run again.
"""

from typing import Literal

import msgspec

from microfin.ledger.operation import AccountState, Kind

Outcome = Literal["lost before", "lost after", "late", "hung", "refused"]
"""What becomes of a message whose answer never comes: it had no effect, it had, it has one `late`.
A `hung` connection says nothing for long; the statement on it had its effect, the record not.
A record can also be `refused`, and is certainly not in the log then."""


class PlannedAccount(msgspec.Struct, frozen=True):
    """An account that exists from the beginning; with `opened_by`, one that a step opens."""

    number: str
    user: str
    currency: str
    balance: int
    opened_by: str = ""


class Step(msgspec.Struct, frozen=True):
    """One operation of a client.

    `after` is the pause before it. `at_once` asks for a `202`. `twice` sends it by two API
    processes at once. `again` repeats it after its answer. `amended` repeats it with another
    body. `hold` is the key of the hold that this step takes from or ends, by the same user on the
    same account; `lifetime` is for how many milliseconds a new one lasts, and `last` releases the
    rest of a captured one.
    """

    key: str
    kind: Kind
    account: str
    user: str
    after: float
    amount: str = ""
    to: str = ""
    currency: str = ""
    state: AccountState | None = None
    at_once: bool = False
    twice: bool = False
    again: bool = False
    amended: bool = False
    hold: str = ""
    lifetime: int = 0
    last: bool = False


class PlannedClient(msgspec.Struct, frozen=True):
    """A client that goes through its steps one after the other."""

    name: str
    steps: list[Step]


Event = Literal["turn", "commit", "sending commit", "produce"]
"""What a process does, counted: its turns, the commits it asks for (or only those of batches that
send something on), the records it appends."""


Counted = Literal["statement", "commit", "sending commit"]


class Moment(msgspec.Struct, frozen=True):
    """`after` seconds past the `number`-th time that a process does something."""

    process: str
    event: Event
    number: int
    after: float = 0.0


class Crash(msgspec.Struct, frozen=True, tag=True):
    """A process dies, and starts again `seconds` later."""

    when: Moment
    seconds: float


class Pause(msgspec.Struct, frozen=True, tag=True):
    """A process is frozen for `seconds`."""

    when: Moment
    seconds: float


class LostStatement(msgspec.Struct, frozen=True, tag=True):
    """The `number`-th statement of a process is answered by nobody; or its `number`-th commit, or
    the `number`-th commit of a batch that sends something on.

    `seconds` is how much later a `late` one arrives.
    """

    process: str
    number: int
    counted: Counted
    outcome: Outcome
    seconds: float


class LostProduce(msgspec.Struct, frozen=True, tag=True):
    """The `number`-th record that a process appends is acknowledged by nobody."""

    process: str
    number: int
    outcome: Outcome
    seconds: float


class SlowProduce(msgspec.Struct, frozen=True, tag=True):
    """The `number`-th record that a process appends needs `seconds`."""

    process: str
    number: int
    seconds: float


class SecondOwner(msgspec.Struct, frozen=True, tag=True):
    """Another worker of a partition starts, without the first one's end."""

    partition: int
    at: float


class GracefulStop(msgspec.Struct, frozen=True, tag=True):
    """A worker receives SIGTERM, and starts again `seconds` later."""

    partition: int
    at: float
    seconds: float


class DatabaseRestart(msgspec.Struct, frozen=True, tag=True):
    """A shard ends all its sessions and accepts none for `seconds`."""

    shard: int
    at: float
    seconds: float


class LossyReplies(msgspec.Struct, frozen=True, tag=True):
    """Replies are lost, repeated or late, each with its probability."""

    lost: float
    repeated: float
    late: float


class LyingCache(msgspec.Struct, frozen=True, tag=True):
    """The cache fails, hangs or forgets, with this probability."""

    probability: float


class SlowNetwork(msgspec.Struct, frozen=True, tag=True):
    """Messages travel up to `seconds` longer, with this probability."""

    probability: float
    seconds: float


class Garbage(msgspec.Struct, frozen=True, tag=True):
    """Somebody appends a record that is no command."""

    partition: int
    at: float


class StaleEnds(msgspec.Struct, frozen=True, tag=True):
    """The broker reports where the log ended `seconds` before."""

    seconds: float


class SecondActivator(msgspec.Struct, frozen=True, tag=True):
    """Somebody else runs the same growth, too."""

    at: float


Fault = (
    Crash
    | Pause
    | LostStatement
    | LostProduce
    | SlowProduce
    | SecondOwner
    | GracefulStop
    | DatabaseRestart
    | LossyReplies
    | LyingCache
    | SlowNetwork
    | Garbage
    | SecondActivator
    | StaleEnds
)


class Growth(msgspec.Struct, frozen=True):
    """At `at` seconds the topic is widened to `partitions`, and the routing grown."""

    at: float
    partitions: int


class Tuning(msgspec.Struct, frozen=True):
    """How workers and API processes are set up."""

    batch: int
    memory: int
    look_up_batches: int
    interval: float
    answer_within: float
    unknown_after: float
    deadline: float


class Plan(msgspec.Struct, frozen=True):
    """One schedule. `seed` draws what the plan leaves open: who goes next, and how long each
    message takes."""

    seed: int
    shards: int
    partitions: int
    apis: int
    tuning: Tuning
    accounts: list[PlannedAccount]
    clients: list[PlannedClient]
    growths: list[Growth]
    faults: list[Fault]
