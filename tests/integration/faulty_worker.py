"""A worker with one fault: the real worker, killed, frozen or made to fail at a named point.

`python faulty_worker.py`, with FAULT_POINT (`before write`, `after commit`, …), FAULT_ACTION
(`kill`, `freeze` or `lose`) and FAULT_OCCURRENCE (it acts at this passing of the point).
The points are the calls over the worker's ports, in the order of its transaction: see `POINTS`.
"""

import contextlib
import functools
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from microfin.redis.account_cache import AccountCache
from microfin.redis.replies import RedisReplies
from microfin_worker.__main__ import main
from microfin_worker.kafka_log import KafkaLog
from microfin_worker.postgres_store import PostgresStore, PostgresTransaction

METHODS: list[tuple[type, str]] = [
    (PostgresTransaction, "lock"),
    (PostgresTransaction, "known_outcomes"),
    (PostgresTransaction, "accounts"),
    (PostgresTransaction, "write"),
    (PostgresStore, "commit"),
    (AccountCache, "put"),
    (RedisReplies, "send"),
    (KafkaLog, "append"),
]
POINTS = [f"{when} {name}" for _, name in METHODS for when in ("before", "after")]
"""A batch commits in one statement (`commit`), or at the end of its transaction, which passes by
the same two points."""


class Fault:
    """Acts at its point, once."""

    def __init__(self, point: str, action: str, occurrence: int) -> None:
        if point not in POINTS:
            raise SystemExit(f"FAULT_POINT {point!r} is none of {POINTS}")
        self._point = point
        self._action = action
        self._left = occurrence
        self._writing = False

    def pass_by(self, point: str) -> None:
        """Act if this is the point, and the time."""
        if point != self._point:
            return
        self._left -= 1
        if self._left != 0:
            return
        print(f"fault: {self._action} at {point}", file=sys.stderr, flush=True)
        if self._action == "lose":
            raise ConnectionResetError(f"injected at {point}")
        os.kill(os.getpid(), signal.SIGKILL if self._action == "kill" else signal.SIGSTOP)

    def wrap(self, owner: type, name: str) -> None:
        """Let a method pass by its two points."""
        method: Callable[..., Awaitable[Any]] = getattr(owner, name)

        @functools.wraps(method)
        async def passing(*arguments: Any, **named: Any) -> Any:
            if name == "write":
                self._writing = True
            self.pass_by(f"before {name}")
            result = await method(*arguments, **named)
            self.pass_by(f"after {name}")
            return result

        setattr(owner, name, passing)

    def wrap_commit(self) -> None:
        """Let the commit of a batch's transaction (not of a mere touch) pass by its two points."""
        transaction = PostgresStore.transaction

        @contextlib.asynccontextmanager
        async def passing(store: PostgresStore) -> AsyncIterator[PostgresTransaction]:
            self._writing = False
            async with transaction(store) as opened:
                yield opened
                if self._writing:
                    self.pass_by("before commit")
            if self._writing:
                self.pass_by("after commit")

        PostgresStore.transaction = passing  # type: ignore[method-assign]


def install() -> None:
    fault = Fault(
        os.environ["FAULT_POINT"],
        os.environ.get("FAULT_ACTION", "kill"),
        int(os.environ.get("FAULT_OCCURRENCE", "1")),
    )
    for owner, name in METHODS:
        fault.wrap(owner, name)
    fault.wrap_commit()


if __name__ == "__main__":
    install()
    sys.exit(main())
