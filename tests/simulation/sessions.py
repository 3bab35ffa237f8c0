"""What a simulated shard holds: its tables, and the sessions and transactions on them."""

import asyncio
from collections.abc import Generator, Hashable
from typing import Any, Final

from microfin.ledger.operation import Outcome
from microfin.ledger.records import Entry, Hold
from microfin.ledger.routing import Routing
from microfin_worker.ports import BatchWrite, Place

Row = dict[str, Any]
Execution = Generator[Hashable, None, Any]
"""A statement being carried out: yields what it must lock, returns its result."""

LOCK_TIMEOUT: Final = 8.0


class Tables:
    """The committed rows of one shard. A row is never changed, only replaced."""

    def __init__(self, shard: int, shards: int, routing: Routing) -> None:
        self.singletons: dict[str, Row] = {
            "routing": {
                "shard": shard,
                "shards": shards,
                "generation": routing.generation,
                "partition_count": routing.partition_count,
                "intended_generation": None,
                "intended_partition_count": None,
                "intent_token": None,
                "intended_at": 0.0,
            }
        }
        self.partitions: dict[int, Row] = {}
        self.accounts: dict[str, Row] = {}
        self.outcomes: dict[tuple[str, str], Outcome] = {}
        self.entries: dict[tuple[str, int], Entry] = {}
        self.contra: dict[tuple[int, str, str], int] = {}
        self.holds: dict[str, Hold] = {}
        self.outbox: dict[tuple[int, int, int], bytes] = {}
        self.quarantine: dict[tuple[int, int], Row] = {}
        self.leases: dict[str, Row] = {}

    @property
    def routing(self) -> Row:
        """The one row of `routing`."""
        return self.singletons["routing"]


class Transaction:
    """What one transaction has locked and will change."""

    __slots__ = ("batches", "changes", "ended", "lock_timeout", "locks", "session", "wants")

    def __init__(self, session: "Session") -> None:
        self.session = session
        self.lock_timeout = LOCK_TIMEOUT
        self.locks: list[Hashable] = []
        self.changes: list[tuple[dict[Any, Any], Any, Any]] = []
        self.batches: list[tuple[Place, BatchWrite]] = []
        self.wants: Hashable = None
        self.ended = False

    def put(self, table: dict[Any, Any], key: Any, row: Any) -> None:
        """Have `row` at `key` from the commit on; None deletes."""
        self.changes.append((table, key, row))


class Session:
    """One connection as the server sees it: `gone` says that the client has left, `dead` that the
    server has ended it."""

    __slots__ = ("client", "dead", "gone", "idle_since", "running", "snapshot", "transaction")

    def __init__(self, client: str) -> None:
        self.client = client
        self.transaction: Transaction | None = None
        self.running: Running | None = None
        self.snapshot: dict[int, Row] | None = None
        self.idle_since = 0.0
        self.gone = False
        self.dead = False


class Running:
    """A statement being carried out, and who waits for its answer; nobody, where that is None.

    `slow`: the answer travels. `given_up`: it was ended while it waited for a lock.
    """

    __slots__ = ("answer", "execution", "given_up", "session", "slow", "transaction")

    def __init__(
        self,
        transaction: Transaction,
        execution: Execution,
        answer: "asyncio.Future[Any] | None",
        *,
        slow: bool,
    ) -> None:
        self.session = transaction.session
        self.transaction = transaction
        self.execution = execution
        self.answer = answer
        self.slow = slow
        self.given_up = False
