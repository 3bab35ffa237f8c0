"""Where the product reaches for the machine itself: its clock, its dice, asyncpg's pool.

For the length of a simulation those names mean the simulated ones. Nothing else of the product is
touched; a planted bug is one more of such replacements.
"""

import contextlib
from collections.abc import Iterator
from random import Random
from typing import Any, Final
from unittest.mock import patch

import structlog

import microfin.process.clock
import microfin.redis.account_cache
import microfin_api.commands.clock_check
import microfin_api.commands.leases
import microfin_api.commands.sending_gate
import microfin_api.commands.submission
import microfin_api.commands.waiting
import microfin_api.phases
import microfin_worker.postgres_store
import microfin_worker.tenure
from microfin.ledger.lease import LEASE_SECONDS
from microfin.postgres.shards import ShardPlace
from simulation.batch_writing import PlacedWrite
from simulation.connections import SimulatedPool
from simulation.database import Database
from simulation.virtual_loop import VirtualLoop, current_process

EPOCH: Final = 1_700_000_000
"""Seconds of the wall clock when the virtual monotonic one shows 0."""

_TIMED: Final = (
    microfin.redis.account_cache,
    microfin.process.clock,
    microfin_api.commands.clock_check,
    microfin_api.commands.leases,
    microfin_api.phases,
    microfin_api.commands.sending_gate,
    microfin_api.commands.submission,
    microfin_api.commands.waiting,
)
"""All modules on the simulated ways that read the machine's time."""


class VirtualTime:
    """What of the module `time` is used."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.monotonic = loop.time
        self._loop = loop

    def time(self) -> float:
        """Return seconds since the Unix epoch."""
        return EPOCH + self._loop.time()

    def time_ns(self) -> int:
        """Return nanoseconds since the Unix epoch."""
        return int(self.time() * 1_000_000_000)


@contextlib.contextmanager
def simulated_product(
    loop: VirtualLoop, seed: int, databases: list[Database], look_up_batches: int
) -> Iterator[None]:
    """Let the product's modules run on the simulation's time, dice and databases."""
    time, random = VirtualTime(loop), Random(f"product {seed}")

    async def connect_pool(
        url: str,
        _settings: Any,
        *,
        place: ShardPlace,
    ) -> SimulatedPool:
        return SimulatedPool(
            databases[int(url.rpartition("/")[2])], current_process(), LEASE_SECONDS
        )

    with contextlib.ExitStack() as stack:
        for module in _TIMED:
            stack.enter_context(patch.object(module, "time", time))
        stack.enter_context(patch.object(microfin_api.commands.waiting, "random", random))
        stack.enter_context(
            patch.object(microfin_api.commands.leases, "connect_pool", connect_pool)
        )
        stack.enter_context(
            patch.object(microfin_worker.postgres_store, "batch_statement", PlacedWrite)
        )
        stack.enter_context(
            patch.object(microfin_worker.tenure, "LOOK_UP_BATCHES", look_up_batches)
        )
        yield


class _Silent(structlog.BoundLoggerBase):
    def _say_nothing(self, *_arguments: Any, **_named: Any) -> None:
        return

    debug = info = warning = error = critical = exception = _say_nothing


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Write no log lines: a simulation's history says more about what matters."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=_Silent)
    try:
        yield
    finally:
        structlog.configure(**before)
