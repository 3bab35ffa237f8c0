"""One connection of a pool that its only user keeps from call to call."""

import contextlib
from collections.abc import AsyncIterator

import asyncpg

from microfin.postgres.connections import Connection, Pool


class HeldConnection:
    """Gives the same connection of a pool again and again, as `pool.acquire` gives any.

    A pool takes several turns of the event loop to lend a connection and to take it back; a worker
    would pay for that with each batch, an API process with each read of accounts. The connection
    goes back to the pool after any error, and the next call gets one that the pool has checked.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._held: Connection | None = None

    def lends_from(self, pool: Pool) -> bool:
        """Return whether `pool` is where the connection comes from."""
        return self._pool is pool

    @contextlib.asynccontextmanager
    async def acquire(self) -> AsyncIterator[Connection]:
        """Give the held connection, or another one while that is in use or closed."""
        connection, self._held = self._held, None
        if connection is not None and _has_ended(connection):
            await self._pool.release(connection)  # does nothing if the pool has it back
            connection = None
        if connection is None:
            connection = await self._pool.acquire()
        try:
            yield connection
        except BaseException:
            await self._pool.release(connection)
            raise
        await self._keep(connection)

    async def expire_connections(self) -> None:
        """Use no connection again that is open now: they may all be dead."""
        held, self._held = self._held, None
        await self._pool.expire_connections()
        if held is not None:
            await self._pool.release(held)

    async def _keep(self, connection: Connection) -> None:
        """Hold `connection` until the next call, unless another one is held by now."""
        if self._held is None:
            self._held = connection
        else:
            await self._pool.release(connection)


def _has_ended(connection: Connection) -> bool:
    """Return whether `connection` is of no use: the other side has closed it, or the pool has.

    The pool takes a connection back as soon as it reads that it was closed. From then on asyncpg
    answers every question to it with an error.
    """
    try:
        ended: bool = connection.is_closed()
    except asyncpg.InterfaceError:
        return True
    return ended
