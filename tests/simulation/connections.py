"""What the product uses as asyncpg: pools, connections and transactions on a simulated shard.

Messages travel; what is lost on the way the client learns as a lost connection, or as a time-out.
"""

import asyncio
from functools import partial
from typing import Any, Self

import asyncpg

from simulation.batch_writing import PlacedWrite, write_batch
from simulation.database import Database, connection_lost
from simulation.partition_statements import commit_transaction
from simulation.plan import LostStatement
from simulation.routing_statements import renew_lease
from simulation.sessions import Session
from simulation.statements import READS, statement
from simulation.virtual_loop import Process


class SimulatedPool:
    """The connections of one process to one shard."""

    def __init__(self, database: Database, process: Process, timeout: float = 5.0) -> None:
        self.database = database
        self.process = process
        self.timeout = timeout
        self.connections: set[SimulatedConnection] = set()
        process.at_death.append(self.terminate)

    def acquire(self) -> "SimulatedConnection":
        """Return a connection, to be used in an `async with`."""
        return SimulatedConnection(self)

    async def expire_connections(self) -> None:
        """Do nothing: every acquiring makes a new connection."""

    def terminate(self) -> None:
        """Break off all connections."""
        for connection in list(self.connections):
            connection.break_off()


class SimulatedConnection:
    """One connection, from its acquiring to its release."""

    def __init__(self, pool: SimulatedPool) -> None:
        self.pool = pool
        self.session = Session(pool.process.name)
        self.explicit = False
        self.sends = False
        self._broken = False
        self._answer: asyncio.Future[Any] | None = None
        self._arrived_last = 0.0

    async def __aenter__(self) -> Self:
        self.pool.connections.add(self)
        return self

    async def __aexit__(self, *_error: object) -> None:
        self.pool.connections.discard(self)

    def transaction(
        self, *, isolation: str = "read_committed", readonly: bool = False
    ) -> "TransactionBlock":
        """Return a transaction, to be used in an `async with`.

        What a repeatable read of microfin reads after the routing is of the same moment: see
        `routing_statements.read_routing`.
        """
        return TransactionBlock(self, reads_only=readonly or isolation == "repeatable_read")

    async def fetch(self, text: str, *arguments: Any) -> Any:
        """Carry out a statement and return its rows."""
        return await self._ask(statement(text), arguments)

    fetchrow = fetch
    fetchval = fetch
    fetch_first = fetch
    fetch_at_once = fetch

    async def execute(self, text: Any, *arguments: Any, timeout: float | None = None) -> Any:
        """Carry out a statement. `timeout` is only that of a rollback after a time-out, which finds
        the connection broken."""
        if timeout is not None:
            raise asyncpg.InterfaceError("connection is closed")
        if isinstance(text, PlacedWrite):
            self.sends = bool(text.write.decisions.outbox)
            return await self._ask(write_batch, (text.place, text.write))
        return await self._ask(statement(text), arguments)

    async def commit(self) -> None:
        """Commit the open transaction."""
        await self._ask(commit_transaction, ())

    def roll_back(self) -> None:
        """Roll the open transaction back; nobody waits for that."""
        if not self._broken:
            self._send_close()

    def terminate(self) -> None:
        """Close the connection."""
        self.break_off()

    def break_off(self) -> None:
        """Close the connection, even if a statement is under way on it."""
        if not self._broken:
            self._broken = True
            self._send_close()
            if self._answer is not None and not self._answer.done():
                self._answer.set_exception(connection_lost())

    async def _ask(self, begin: Any, arguments: tuple[Any, ...]) -> Any:
        if self._broken:
            raise asyncpg.InterfaceError("connection is closed")
        pool = self.pool
        network, loop = pool.database.network, pool.database.loop
        alone = begin in (write_batch, renew_lease) and not self.explicit
        commits = begin is commit_transaction or alone
        slow = begin not in READS
        fault = network.statement_fault(pool.process.name, commits=commits, sends=self.sends)
        answer: asyncio.Future[Any] = loop.create_future()
        if fault is not None:
            self._lose(fault, begin, arguments, answer, commits=commits)
        else:
            self._send(network.delay(), begin, arguments, answer, slow=slow)
        self._answer = answer
        try:
            return await answer
        except asyncio.CancelledError:
            self.break_off()
            raise
        except (asyncpg.exceptions.ConnectionDoesNotExistError, TimeoutError):
            self._broken = True
            raise

    def _send(
        self,
        delay: float,
        begin: Any,
        arguments: tuple[Any, ...],
        answer: "asyncio.Future[Any] | None",
        *,
        slow: bool,
    ) -> None:
        loop = self.pool.database.loop
        self._arrived_last = loop.time() + delay
        receive = partial(self.pool.database.receive, explicit=self.explicit, slow=slow)
        loop.later(delay, receive, self.session, begin, arguments, answer)

    def _send_close(self) -> None:
        """Say it to the server, after all that was sent before."""
        database = self.pool.database
        arrives = max(self._arrived_last, database.loop.time() + database.network.delay())
        database.loop.later(arrives - database.loop.time(), database.close, self.session)

    def _lose(
        self,
        fault: LostStatement,
        begin: Any,
        arguments: tuple[Any, ...],
        answer: "asyncio.Future[Any]",
        *,
        commits: bool,
    ) -> None:
        """Let the statement arrive or not, and let the client know nothing of it."""
        database = self.pool.database
        database.history.note(
            self.pool.process.name, "{}: {} ({:.3f} s)", begin.__name__, fault.outcome,
            fault.seconds,
        )  # fmt: skip
        delay = database.network.delay()
        outcome = fault.outcome if commits or fault.outcome != "late" else "lost before"
        if outcome == "late":
            delay += fault.seconds
        if outcome != "lost before":
            self._send(delay, begin, arguments, None, slow=True)
        self._send_close()
        wait = self.pool.timeout if outcome == "hung" else database.network.delay()
        error = TimeoutError("simulated") if outcome == "hung" else connection_lost()
        database.loop.later(wait, _fail, answer, error)


class TransactionBlock:
    """`async with connection.transaction()`; it begins with its first statement."""

    def __init__(self, connection: SimulatedConnection, *, reads_only: bool) -> None:
        self._connection = connection
        self._reads_only = reads_only

    async def __aenter__(self) -> None:
        self._connection.explicit = not self._reads_only

    async def __aexit__(self, error_type: type[BaseException] | None, *_error: object) -> None:
        connection = self._connection
        if self._reads_only:
            return
        if error_type is not None:
            connection.roll_back()
        else:
            await connection.commit()


def _fail(answer: "asyncio.Future[Any]", error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)
