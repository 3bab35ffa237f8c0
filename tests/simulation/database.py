"""A shard's PostgreSQL in memory: tables, row locks, transactions and sessions.

What it does as PostgreSQL does: a transaction's changes are seen by others when it commits, all at
once; rows and unique keys that it changes are locked until it ends, and who wants them waits; after
the wait a statement sees the row as it is then (READ COMMITTED). A session that is idle inside
a transaction is ended after two seconds. A statement that has arrived is carried out, whether or
not anybody still waits for its answer. No transaction of microfin reads what it has itself written,
so the simulation leaves that out.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Hashable
from typing import Any, Final, Protocol

import asyncpg

from microfin_worker.ports import BatchWrite, Place
from simulation.history import History
from simulation.network import Network
from simulation.sessions import Execution, Row, Running, Session, Tables, Transaction
from simulation.virtual_loop import VirtualLoop

IDLE_IN_TRANSACTION: Final = 2.0
"""Seconds after which a session that is idle inside a transaction is ended."""


class Observer(Protocol):
    """Who watches the commits."""

    def commit(self, database: "Database", place: Place, write: BatchWrite, client: str) -> None:
        """Learn of a batch."""

    def route(self, database: "Database", row: Row) -> None:
        """Learn of a new row of `routing`."""


class Database:
    """One shard. The observer learns what is committed, before it counts."""

    def __init__(
        self,
        loop: VirtualLoop,
        network: Network,
        history: History,
        tables: Tables,
        observer: "Observer",
    ) -> None:
        self.loop = loop
        self.network = network
        self.history = history
        self.tables = tables
        self.name = f"shard-{tables.routing['shard']}"
        self.sessions: set[Session] = set()
        self._observer = observer
        self._locks: dict[Hashable, Transaction] = {}
        self._queues: defaultdict[Hashable, deque[Running]] = defaultdict(deque)
        self._down = False

    def restart(self, seconds: float) -> None:
        """End all sessions, and accept none for `seconds`."""
        self.history.note(self.name, "ends all sessions for {} s", seconds)
        self._down = True
        self.loop.later(seconds, self._up)
        for session in list(self.sessions):
            self._terminate(session)

    def _up(self) -> None:
        self._down = False
        self.history.note(self.name, "is back")

    # Statements -------------------------------------------------------------------------------

    def receive(
        self,
        session: Session,
        begin: Callable[..., Execution],
        arguments: tuple[Any, ...],
        answer: "asyncio.Future[Any] | None",
        *,
        explicit: bool,
        slow: bool,
    ) -> None:
        """Carry out a statement that has arrived: `begin(database, transaction, *arguments)`."""
        if self._down:
            session.dead = True
        transaction = session.transaction
        if transaction is not None and self._has_idled(session):
            self._terminate(session)
        if session.dead:
            self._answer(answer, None, connection_lost(), slow=True)
            return
        if transaction is None:
            transaction = Transaction(session)
            if explicit:
                session.transaction = transaction
        self.sessions.add(session)
        running = Running(transaction, begin(self, transaction, *arguments), answer, slow=slow)
        session.running = running
        self._go_on(running)

    def close(self, session: Session) -> None:
        """Learn that the client is gone: what it left open is rolled back, what runs runs on."""
        session.gone = True
        if session.running is None:
            self._terminate(session)

    def _go_on(self, running: Running) -> None:
        transaction = running.transaction
        try:
            while True:
                key = next(running.execution)
                holder = self._locks.setdefault(key, transaction)
                if holder is transaction:
                    transaction.locks.append(key)
                else:
                    self._wait(running, key, holder)
                    return
        except StopIteration as end:
            result = end.value
        except asyncpg.PostgresError as error:
            self._end(running, None, error)
            return
        if running.session.transaction is None and not transaction.ended:
            self.commit(transaction)
        self._end(running, result, None)

    def _end(self, running: Running, result: Any, error: Exception | None) -> None:
        session = running.session
        session.running = None
        session.idle_since = self.loop.time()
        if error is not None:
            self.roll_back(running.transaction)
        if session.gone:
            self._terminate(session)
        elif session.transaction is None:
            self.sessions.discard(session)
        self._answer(running.answer, result, error, slow=running.slow)

    def _answer(
        self,
        answer: "asyncio.Future[Any] | None",
        result: Any,
        error: Exception | None,
        *,
        slow: bool,
    ) -> None:
        if answer is None:
            return
        if slow:
            self.loop.later(self.network.delay(), _deliver, answer, result, error)
        else:
            _deliver(answer, result, error)

    # Transactions -----------------------------------------------------------------------------

    def commit(self, transaction: Transaction) -> None:
        """Let all changes count, and let go of all locks."""
        for place, write in transaction.batches:
            self._observer.commit(self, place, write, transaction.session.client)
        for table, key, row in transaction.changes:
            if table is self.tables.singletons:
                self._observer.route(self, row)
            if row is None:
                table.pop(key, None)
            else:
                table[key] = row
        self._let_go(transaction)

    def roll_back(self, transaction: Transaction) -> None:
        """Forget the changes, and let go of all locks."""
        self._let_go(transaction)

    def _let_go(self, transaction: Transaction) -> None:
        transaction.ended = True
        if transaction.session.transaction is transaction:
            transaction.session.transaction = None
        for key in transaction.locks:
            if self._locks.get(key) is not transaction:
                continue
            del self._locks[key]
            if key in self._queues:
                self._hand_over(key)
        transaction.locks.clear()

    def _terminate(self, session: Session) -> None:
        """End a session from the server's side."""
        session.dead = True
        self.sessions.discard(session)
        running, session.running = session.running, None
        if running is not None:
            running.given_up = True
            self._answer(running.answer, None, connection_lost(), slow=True)
            self.roll_back(running.transaction)
        if session.transaction is not None:
            self.roll_back(session.transaction)

    # Locks ------------------------------------------------------------------------------------

    def _wait(self, running: Running, key: Hashable, holder: Transaction) -> None:
        running.transaction.wants = key
        if self._is_deadlock(running.transaction, holder):
            running.transaction.wants = None
            self._end(running, None, asyncpg.DeadlockDetectedError("simulated deadlock"))
            return
        self._queues[key].append(running)
        self.history.note(
            self.name,
            "{} waits for {}, held by {}",
            running.session.client,
            key,
            holder.session.client,
        )
        self.loop.later(running.transaction.lock_timeout, self._give_up, running, key)
        idle = holder.session
        if idle.running is None:
            wait = idle.idle_since + IDLE_IN_TRANSACTION - self.loop.time()
            self.loop.later(max(wait, 0.0) + 0.001, self._reap, holder)

    def _is_deadlock(self, transaction: Transaction, holder: Transaction) -> bool:
        following: Transaction | None = holder
        while following is not None and following.wants is not None:
            following = self._locks.get(following.wants)
            if following is transaction:
                return True
        return False

    def _hand_over(self, key: Hashable) -> None:
        queue = self._queues[key]
        while queue:
            running = queue.popleft()
            if running.given_up:
                continue
            self._locks[key] = running.transaction
            running.transaction.locks.append(key)
            running.transaction.wants = None
            self.loop.later(0.0, self._resume, running)
            break
        if not queue:
            del self._queues[key]

    def _resume(self, running: Running) -> None:
        if not running.given_up:
            self._go_on(running)

    def _give_up(self, running: Running, key: Hashable) -> None:
        if running.transaction.wants == key and not running.given_up:
            running.given_up = True
            running.transaction.wants = None
            self._end(running, None, asyncpg.LockNotAvailableError("simulated lock timeout"))

    def _has_idled(self, session: Session) -> bool:
        return self.loop.time() - session.idle_since > IDLE_IN_TRANSACTION

    def _reap(self, holder: Transaction) -> None:
        session = holder.session
        if session.transaction is not holder or session.running is not None:
            return
        if self._has_idled(session):
            self.history.note(self.name, "ends the idle transaction of {}", session.client)
            self._terminate(session)
        else:
            wait = session.idle_since + IDLE_IN_TRANSACTION - self.loop.time()
            self.loop.later(wait + 0.001, self._reap, holder)


def connection_lost() -> Exception:
    """Return the error that a client sees when its connection breaks."""
    return asyncpg.exceptions.ConnectionDoesNotExistError("simulated connection loss")


def _deliver(answer: "asyncio.Future[Any]", result: Any, error: Exception | None) -> None:
    if answer.done():
        return
    if error is not None:
        answer.set_exception(error)
    else:
        answer.set_result(result)
