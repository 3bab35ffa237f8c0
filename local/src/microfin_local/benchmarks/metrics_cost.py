"""The cost of metrics: only the calls that API and worker make to count one operation.

Metrics cannot be switched off, so a load run cannot show their cost. This measurement can, and more
precisely than the difference between two runs.
"""

import asyncio
import time
from collections.abc import Callable
from statistics import median
from typing import Any, Final

from prometheus_client import generate_latest

from microfin.ledger import wire
from microfin.ledger.account_number import derive_account_number
from microfin.ledger.decision import decide
from microfin.ledger.operation import operation_id
from microfin.ledger.records import Decisions
from microfin.ledger.routing import Routing
from microfin.ledger.wire import Command
from microfin.process.clock import SystemClock
from microfin_api import metrics as api_metrics
from microfin_api.commands.backpressure import Backpressure
from microfin_api.middleware import count_answer
from microfin_api.phases import CommandPhases
from microfin_worker import metrics as worker_metrics
from microfin_worker.batch import receive
from microfin_worker.phases import BatchPhases
from microfin_worker.ports import Record

BATCHES: Final = (1, 10, 50, 500)
_OPERATIONS: Final = 20_000
_REPEATS: Final = 5
_USER: Final = "a" * 32
_ACCOUNT: Final = derive_account_number("0" * 32, 0)


async def measure_metrics() -> dict[str, Any]:
    """Return the microseconds per operation; for the worker by the size of its batches."""
    sending = asyncio.create_task(asyncio.sleep(0))
    await sending
    api = _microseconds(lambda: _count_in_api(sending), _OPERATIONS, each=1)
    worker = {}
    for size in BATCHES:
        records = _records(size)
        decisions = decide(0, Routing(1, 1), {}, {}, receive(records, ()))

        def count(records: list[Record] = records, decisions: Decisions = decisions) -> None:
            _count_in_worker(records, decisions)

        worker[str(size)] = _microseconds(count, _OPERATIONS // size, each=size)
    return {
        "api_microseconds": api,
        "worker_microseconds_by_batch": worker,
        "scrape_microseconds": _microseconds(lambda: bool(generate_latest()), 50, each=1),
    }


class _Scoped:
    path = "/api/deposit"


_SCOPE: Final[dict[str, Any]] = {"method": "POST", "route": _Scoped()}
_BACKPRESSURE: Final = Backpressure(1_000)


def _count_in_api(sending: "asyncio.Task[None]") -> None:
    """Make the API's calls for a settled deposit."""
    begun = time.monotonic()
    phases = CommandPhases(begun)
    _BACKPRESSURE.enter(0)
    phases.sent()
    api_metrics.ACKNOWLEDGE_SECONDS.observe(time.monotonic() - begun)
    phases.acknowledged(time.time_ns() // 1_000_000)
    phases.settled(time.monotonic())
    _BACKPRESSURE.leave(0, sending)
    api_metrics.OPERATIONS.labels("deposit", "settled").inc()
    ended = time.monotonic()
    count_answer(_SCOPE, 200, ended - begun)
    phases.ended(ended)


def _count_in_worker(records: list[Record], decisions: Decisions) -> None:
    """Make the worker's calls for a batch."""
    phases = BatchPhases(SystemClock())
    phases.decided()
    worker_metrics.COMMIT_SECONDS.observe(0.01)
    phases.committed(records)
    worker_metrics.count(decisions, len(records))
    phases.published(len(decisions.answers))


def _records(size: int) -> list[Record]:
    now = SystemClock().now()
    return [
        Record(
            offset,
            now - offset % 50,
            _ACCOUNT.encode(),
            wire.encode(
                Command(
                    kind="deposit",
                    leg="request",
                    operation=operation_id(_USER, str(offset), "deposit", _ACCOUNT),
                    account=_ACCOUNT,
                    user=_USER,
                    amount="1.5",
                    generation=1,
                    reply="api/1",
                )
            ),
        )
        for offset in range(size)
    ]


def _microseconds(call: Callable[[], object], calls: int, *, each: int) -> float:
    """Return the median time per operation over some repeats; a call has `each` operations."""
    seconds = []
    for _ in range(_REPEATS):
        began = time.process_time()
        for _ in range(calls):
            call()
        seconds.append((time.process_time() - began) / calls / each)
    return round(1_000_000 * median(seconds), 2)
