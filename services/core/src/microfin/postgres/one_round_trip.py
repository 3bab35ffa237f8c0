"""One statement with parameters in one round trip, behind every kind of pooler.

Without statements prepared by name, which a transaction pooler may not know, asyncpg asks twice for
each statement: for its types, and for its rows. Here a connection remembers the types of the few
statements that it uses. Then a statement, its parameters and the end of its transaction are one
message. Under load each round trip waits for a turn of the event loop.

The values are parameters, so they are not in the text that PostgreSQL may log.
"""

from typing import Any, Final

import asyncpg
from asyncpg.prepared_stmt import PreparedStatement

_MOST_REMEMBERED: Final = 100


class OneRoundTrip(asyncpg.Connection):  # type: ignore[misc]
    """A connection that remembers the types of statements."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._known: dict[str, Any] = {}

    async def fetch_at_once(self, statement: str, *values: Any) -> list[asyncpg.Record]:
        """Return the rows of `statement`, which is a transaction of its own unless one has begun.

        `statement` is one of a few constants: its types are remembered.
        """
        if self._stmt_cache_enabled:  # then asyncpg remembers the whole statement
            rows: list[asyncpg.Record] = await self.fetch(statement, *values)
            return rows
        if statement not in self._known:
            await self._learn(statement)
        try:
            # asyncpg's objects end with each release to the pool, what they know does not.
            prepared = PreparedStatement(self, statement, self._known[statement])
            rows = await prepared.fetch(*values)
        except Exception:  # perhaps the types have changed
            self._known.pop(statement, None)
            raise
        return rows

    async def fetch_first(self, statement: str, *values: Any) -> asyncpg.Record | None:
        """Return the first row of `statement`, None if it has none; else as `fetch_at_once`."""
        rows = await self.fetch_at_once(statement, *values)
        return rows[0] if rows else None

    async def _learn(self, statement: str) -> None:
        """Ask for the types. This is one message, after which a pooler may give the server away."""
        prepared = await self.prepare(statement)
        if len(self._known) >= _MOST_REMEMBERED:
            self._known.clear()
        self._known[statement] = prepared._state  # noqa: SLF001 - there is no other way to keep it
